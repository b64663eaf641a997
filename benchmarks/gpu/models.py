"""Image towers of published geometries with random weights, in memory or as a checkpoint."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from deployments.models.families import FAMILIES
from deployments.models.layouts.halves import Vision
from deployments.models.spec import Preprocessing
from deployments.models.towers import ImageTower
from deployments.wire import PixelSpec


@dataclass(frozen=True)
class Geometry:
    name: str
    model: str
    """The class of transformers."""
    family: str
    config: dict[str, Any]

    @property
    def side(self) -> int:
        """Of the square images, in pixels."""
        side: int = self.config["image_size"]
        return side

    @property
    def preprocessing(self) -> Preprocessing:
        # A mean and a standard deviation of one half, as SigLIP's. They cost what others cost.
        pixels = PixelSpec(resize=("exact", self.side, self.side), resample=3, crop=None)
        return Preprocessing(pixels, scale=(2 / 255,) * 3, shift=(-1.0,) * 3)


def _vit(width: int, hidden: int, layers: int, heads: int, side: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
    }


_CLIP = ("CLIPVisionModelWithProjection", "CLIPVisionModelWithProjection")
_SIGLIP = ("SiglipVisionModel", "siglip_vision_model")

GEOMETRIES = (
    Geometry(
        "clip-vit-base-patch32",
        *_CLIP,
        {**_vit(768, 3072, 12, 12, 224, 32), "projection_dim": 512},
    ),
    Geometry(
        "clip-vit-large-patch14-336",
        *_CLIP,
        {**_vit(1024, 4096, 24, 16, 336, 14), "projection_dim": 768},
    ),
    Geometry("siglip-so400m-patch14-384", *_SIGLIP, _vit(1152, 4304, 27, 16, 384, 14)),
)
TINY: Sequence[Geometry] = (
    Geometry("tiny-clip", *_CLIP, {**_vit(32, 64, 2, 2, 32, 16), "projection_dim": 24}),
    Geometry("tiny-siglip", *_SIGLIP, _vit(32, 64, 2, 2, 32, 16)),
)


def _model(geometry: Geometry, device: str) -> Any:
    """The same weights each time, with a spread that keeps different images apart."""
    model_class = getattr(transformers, geometry.model)
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(model_class.config_class(**geometry.config)).eval()
    for weights in model.parameters():
        if weights.ndim >= 2:
            nn.init.normal_(weights, std=1 / math.sqrt(weights[0].numel()))
    return model.requires_grad_(False)


def tower(geometry: Geometry, device: str) -> nn.Module:
    """In float32, as `Encoder.load` makes it."""
    vision = Vision(_model(geometry, device), FAMILIES[geometry.family])
    image = ImageTower(vision, geometry.preprocessing).to(device)
    image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return image


def write(geometry: Geometry, folder: Path, device: str) -> Path:
    """A checkpoint in `folder`, which raylens serves like the real one."""
    _model(geometry, device).to("cpu").save_pretrained(folder)
    settings = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": geometry.side, "width": geometry.side},
        "resample": 3,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
