"""What there is to know of a family of checkpoints: how it pools, and how it reads texts.

Knows no family. `families` has the table of them.
"""

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["cls", "mean", "pooler", "projection", "patches", "tokens"]
"""How a model's output becomes one vector for each image:
`cls`: the class token of the last hidden state; `mean`: the average of its patches, without class
and register tokens; `pooler`: the model's own `pooler_output`; `projection`: that, mapped into the
space that images and texts share. Or how it becomes several: `patches`: the last hidden state of
each patch, row by row, without those tokens; of a convolutional network, each place of its last
feature map. `tokens`: all that a language model reads of an image, see `layouts.colpali`."""


@dataclass(frozen=True, slots=True)
class TextRules:
    """How a dual encoder's text tower is fed and pooled, as its authors do."""

    padding: Literal["eos", "mask", "max_length"]
    """What follows a text that is shorter than others of its batch.
    `eos`: its own last token again, which causal attention never looks at; `mask`: pad tokens that
    an attention mask hides; `max_length`: pad tokens up to `max_tokens`, read because unmasked."""
    pooling: Literal["eos", "pooler", "cls", "tokens"]
    """Which vector of the text goes into the projection, where there is one. `eos`: the model's own
    pooled output, which is that of the token at the end of the text; `pooler`: another one;
    `tokens`: those of all tokens."""
    score: Literal["softmax", "sigmoid", "maxsim"]
    """How logits of an image and several labels become probabilities; or `maxsim`, see
    `TextSpec.score`."""
    max_tokens: int | None = None
    """The longest text in training. None: as many as there are position embeddings."""
    positions_from_pad: bool = False
    """Whether positions start after the pad token's id, as in XLM-RoBERTa, which leaves fewer."""
    lower_cases_gemma: bool = False
    """Whether texts are lower-cased if the tokenizer is Gemma's, as SigLIP 2 was trained. Its
    repositories name a class that keeps the case; transformers' Siglip2Tokenizer does not."""
    part: str = "text_model"
    """What the model class calls its text half."""
    projection: str = "text_projection"
    """What it calls the map from there into the shared space. It may have none."""


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table."""

    pooling: Pooling
    """What `model.pooling: auto` means; after `choose_family`, the pooling in use."""
    others: tuple[Pooling, ...]
    """What `model.pooling` may ask for instead."""
    prefix_tokens: int = 0
    """Class and distillation tokens before the patches. Register tokens come on top."""
    text: TextRules | None = None
    hides_patches: bool = False
    """Whether the model shuffles its patches, of which training hides some, by random noise."""
    tolerant: bool = False
    """Whether pixels off by one grey level here and there leave the vector as it is (a cosine of
    1.000000), so that images may be resized faster if the model is not in float32 anyway."""
    takes_patches: bool = False
    """Whether images come as patches of their own aspect ratio, see `PatchSpec`."""
    model_class: str = "AutoModel"
    """The class of transformers that loads all of the checkpoint that is used."""
    part: str = "vision_model"
    """What a class of two halves calls the one for images."""
    projection: str | None = "visual_projection"
    """What it calls the map from there into the shared space. None: images are pooled into it."""
    projects_cls: bool = False
    """Whether the class token is what is projected, instead of `pooler_output`."""
    pooled: str = "pooler_output"
    """What the model class calls its pooled vectors among its outputs."""
    options: tuple[tuple[str, object], ...] = ()
    """What the model class is built with besides what config.json says."""
    heads: tuple[str, ...] = ()
    """Layers of the model class to be passed over: what it would feed to them is what it gives."""
