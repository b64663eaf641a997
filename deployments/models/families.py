"""What raylens knows of each family of checkpoints: how it pools, and how it reads texts.

One table, `FAMILIES`, by the `model_type` in config.json, or by `architectures` if one model type
is saved in two ways. `model.pooling: auto` does what a family's authors do; a family that is not in
the table is refused, never guessed at.
"""

from dataclasses import dataclass, replace
from typing import Literal

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.integrity import weight_names

Pooling = Literal["cls", "mean", "pooler", "projection"]
"""How a model's output becomes one vector for each image:
`cls`: the class token of the last hidden state; `mean`: the average of its patches, without class
and register tokens; `pooler`: the model's own `pooler_output`; `projection`: that, mapped into the
space that images and texts share."""


@dataclass(frozen=True, slots=True)
class TextRules:
    """How a dual encoder's text tower is fed and pooled, as its authors do."""

    padding: Literal["eos", "mask", "max_length"]
    """What follows a text that is shorter than others of its batch.
    `eos`: its own last token again, which causal attention never looks at; `mask`: pad tokens that
    an attention mask hides; `max_length`: pad tokens up to `max_tokens`, read because unmasked."""
    pooling: Literal["pooler", "cls"]
    """Which vector of the text goes into `text_projection`, where there is one."""
    score: Literal["softmax", "sigmoid"]
    """How logits of an image and several labels become probabilities."""
    max_tokens: int | None = None
    """The longest text in training. None: as many as there are position embeddings."""
    positions_from_pad: bool = False
    """Whether positions start after the pad token's id, as in XLM-RoBERTa, which leaves fewer."""
    lower_cases_gemma: bool = False
    """Whether texts are lower-cased if the tokenizer is Gemma's, as SigLIP 2 was trained. Its
    repositories name a class that keeps the case; transformers' Siglip2Tokenizer does not."""


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
    """Whether the model masks random patches unless told not to; embeddings need all of them."""
    tolerant: bool = False
    """Whether pixels off by one grey level here and there leave the vector as it is (a cosine of
    1.000000), so that images may be resized faster if the model is not in float32 anyway."""
    takes_patches: bool = False
    """Whether images come as patches of their own aspect ratio, see `PatchSpec`."""
    model_class: str = "AutoModel"
    """The class of transformers that loads all of the checkpoint that is used."""


_CLIP = Family(
    pooling="projection",
    others=("pooler", "cls", "mean"),
    prefix_tokens=1,
    text=TextRules(padding="eos", pooling="pooler", score="softmax"),
    tolerant=True,
)
_BERT = TextRules(padding="mask", pooling="cls", score="softmax")
_JOINT = Family("projection", ("pooler", "mean"))
_PATCHES_AND_CLASS = Family("cls", ("pooler", "mean"), prefix_tokens=1, tolerant=True)
_POOLED = Family("pooler", ("mean",))
_SIGLIP = replace(
    _JOINT,
    text=TextRules(padding="max_length", pooling="pooler", score="sigmoid", lower_cases_gemma=True),
    tolerant=True,
)

FAMILIES: dict[str, Family] = {
    # Images and texts in one space.
    "clip": _CLIP,  # OpenCLIP's and MetaCLIP's checkpoints too
    "metaclip_2": _CLIP,
    "altclip": replace(_CLIP, text=replace(_BERT, positions_from_pad=True)),
    "chinese_clip": replace(_CLIP, text=replace(_BERT, max_tokens=52)),
    # The vision models of these two pool directly into the shared space.
    "align": replace(_JOINT, text=replace(_BERT, max_tokens=64)),
    "siglip": _SIGLIP,  # SigLIP 2 of a fixed resolution too
    "siglip2": replace(_SIGLIP, takes_patches=True),  # NaFlex
    # Vision towers saved alone.
    "CLIPVisionModelWithProjection": replace(
        _CLIP, text=None, model_class="CLIPVisionModelWithProjection"
    ),
    "clip_vision_model": Family("pooler", ("cls", "mean"), prefix_tokens=1, tolerant=True),
    "siglip_vision_model": Family("pooler", ("mean",), tolerant=True),
    "siglip2_vision_model": Family("pooler", ("mean",), tolerant=True, takes_patches=True),
    # Transformers. Their poolers, if they have one, are trained with a head or not at all.
    "vit": _PATCHES_AND_CLASS,
    "deit": replace(_PATCHES_AND_CLASS, prefix_tokens=2),
    "dinov2": _PATCHES_AND_CLASS,
    "dinov2_with_registers": _PATCHES_AND_CLASS,
    "dinov3_vit": _PATCHES_AND_CLASS,
    "beit": Family("pooler", ("cls", "mean"), prefix_tokens=1, tolerant=True),
    "vit_mae": Family("cls", ("mean",), prefix_tokens=1, hides_patches=True, tolerant=True),
    "swin": replace(_POOLED, tolerant=True),
    "swinv2": _POOLED,
    "hiera": replace(_POOLED, tolerant=True),
    # Convolutional networks.
    "bit": _POOLED,
    "convnext": replace(_POOLED, tolerant=True),
    "convnextv2": replace(_POOLED, tolerant=True),
    "dinov3_convnext": Family("pooler", ("mean",), prefix_tokens=1, tolerant=True),
    "efficientnet": _POOLED,
    "mobilenet_v1": _POOLED,
    "mobilenet_v2": _POOLED,
    "mobilevit": _POOLED,
    "mobilevitv2": _POOLED,
    "regnet": _POOLED,
    "resnet": _POOLED,
}

# Poolings that need no knowledge of the family, for families that are not in the table.
_ANYWHERE: tuple[Pooling, ...] = ("cls", "pooler")


def choose_family(
    checkpoint: Checkpoint, pooling: Literal["auto", "cls", "mean", "pooler", "projection"]
) -> Family:
    """The checkpoint's row of the table with `pooling` applied; `text` only for `projection`.

    Raises CheckpointError for a family that raylens does not know, and for a pooling that the
    family cannot do.
    """
    config = read_json(checkpoint.folder / "config.json")
    kind = str(config.get("model_type"))
    architectures = config.get("architectures") or ()
    if isinstance(architectures, str):
        architectures = (architectures,)
    family = next((FAMILIES[name] for name in (*architectures, kind) if name in FAMILIES), None)
    if kind in ("clip", "siglip", "siglip2", "clip_vision_model"):
        # One kind stands for two spaces, and fine-tuned classifiers keep the kind of both halves:
        # the weights decide, whatever config.json says.
        names = weight_names(checkpoint.folder)
        has_text, is_projected = (_any(names, part) for part in ("text_model", "visual_projection"))
        if kind == "clip_vision_model" and is_projected:
            family = FAMILIES["CLIPVisionModelWithProjection"]
        elif kind == "clip" and not has_text and not is_projected:
            family = FAMILIES["clip_vision_model"]
        elif kind != "clip_vision_model" and not has_text:
            family = replace(FAMILIES[kind], text=None)
    if family is None and pooling in _ANYWHERE:
        return Family(pooling, _ANYWHERE)
    if family is None:
        raise CheckpointError(
            f"model {checkpoint.id!r} is of the family {kind!r}, whose pooling raylens does not "
            f"know; it knows {', '.join(sorted(FAMILIES))}. Serve one of these, or set "
            f"model.pooling to {' or '.join(_ANYWHERE)}"
        )
    known = (family.pooling, *family.others)
    if pooling == "auto":
        pooling = family.pooling
    if pooling not in known:
        raise CheckpointError(
            f"model.pooling is {pooling!r}, which {kind} models such as {checkpoint.id!r} do not "
            f"have; it may be {', '.join(known)}"
        )
    return replace(
        family,
        pooling=pooling,
        others=tuple(other for other in known if other != pooling),
        text=family.text if pooling == "projection" else None,
    )


def _any(names: set[str], part: str) -> bool:
    """Whether there are weights of this part, which may be in another module."""
    return any(f".{part}." in f".{name}" for name in names)
