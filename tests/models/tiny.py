"""How a tiny checkpoint with random weights is built, laid out like a published one.

From transformers' stock configuration classes, with the image processor of a published checkpoint.
The weights are seeded, and larger than those that training begins with, so that different images
and texts get different vectors.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.modules.batchnorm import _BatchNorm

from tests.models.published import PUBLISHED
from tests.models.reference import quiet
from tests.models.tokenizers import Vocabulary

Options = dict[str, Any]

LAYERS: Options = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VIT: Options = {**LAYERS, "image_size": 224, "patch_size": 32}
STAGES: Options = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS: Options = {"num_attention_heads": [1, 2, 2, 4]}
SWIN: Options = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
EFFICIENTNET: Options = {
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "in_channels": [32, 8, 8, 16, 16, 16, 24],
    "out_channels": [8, 8, 16, 16, 16, 24, 32],
    "num_block_repeats": [1] * 7,
    "expand_ratios": [1, 2, 2, 2, 2, 2, 2],
}


@dataclass(frozen=True)
class Tiny:
    """How to build a tiny checkpoint."""

    model: str
    """The model class of transformers. Its `config_class` takes the options."""
    processor: str
    """The published checkpoint whose image processor it has."""
    options: Options
    tokenizer: Callable[[Path], Vocabulary] | None = None
    """Writes the tokenizer's files, for a dual encoder."""


def dual(
    model: str,
    processor: str,
    tokenizer: Callable[[Path], Vocabulary],
    text: Options,
    vision: Options = VIT,
    **joint: Any,
) -> Tiny:
    options = {"vision_config": vision, "text_config": {**LAYERS, **text}, **joint}
    return Tiny(model, processor, options, tokenizer)


def build(tiny: Tiny, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    options = tiny.options
    if tiny.tokenizer is not None:
        size, bos, eos, pad = tiny.tokenizer(folder)
        ids = {"vocab_size": size, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
        options = {**options, "text_config": {**ids, **options["text_config"]}}
    model_class = getattr(transformers, tiny.model)
    model = model_class(model_class.config_class(**options)).eval()
    enlarge(model)
    with quiet():
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[tiny.processor]))
    return folder


def enlarge(model: torch.nn.Module, height_width: Sequence[int] = (224, 224)) -> None:
    """Draws all weights anew, so that every one of them affects the vectors.

    The weights that training begins with are so small that all images come out nearly equal.
    """
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.state_dict().items():
            kind = name.rpartition(".")[2]
            noise = torch.randn(values.shape, generator=random)
            if kind == "logit_scale":
                values.fill_(math.log(20))
            elif kind == "logit_bias":
                values.fill_(-2)
            elif kind == "temperature" or not values.is_floating_point():
                continue
            elif values.ndim >= 2:
                values.copy_(noise / math.sqrt(values[0].numel()))
            elif kind == "bias":
                values.copy_(0.1 * noise)
            elif not kind.startswith("running_"):
                values.copy_(1 + 0.2 * noise)
        settle(model, random, height_width)


def settle(model: Any, random: torch.Generator, height_width: Sequence[int]) -> None:
    """Gives batch normalisation statistics of images; without them, all vectors look alike."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    coarse = torch.randn((8, 3, 7, 7), generator=random)
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    vision = getattr(model, "vision_model", model)
    vision(torch.nn.functional.interpolate(coarse, size=tuple(height_width), mode="bicubic"))
    model.eval()
