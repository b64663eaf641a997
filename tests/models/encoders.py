"""Encoders made of towers that compute next to nothing, or loaded from a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.checkpoints.checkpoint import Checkpoint
from deployments.models.encoder import Encoder
from deployments.models.spec import Preprocessing
from deployments.models.towers import ImageTower
from deployments.settings import ModelSettings
from deployments.wire import PixelSpec, TextSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = Preprocessing(
    pixels=PixelSpec(resize=("exact", 4, 6), resample=3, crop=None),
    scale=tuple(1 / 255 / std for std in STD),  # type: ignore[arg-type]
    shift=tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True)),  # type: ignore[arg-type]
)


class FakeModel(torch.nn.Module):
    """Gives its input back as the vector, and remembers the batch sizes."""

    def __init__(self, change: Callable[[torch.Tensor], Any] = lambda flat: flat) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.change = change
        self.sizes: list[int] = []

    def forward(self, values: torch.Tensor) -> Any:
        self.sizes.append(len(values))
        return self.change(values.flatten(1))


class FakeTextTower(torch.nn.Module):
    """Gives each text's first token back, repeated `dimensions` times."""

    def __init__(self, dimensions: int = 72) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :1].float().expand(-1, self.dimensions)


def encode(
    model: torch.nn.Module | None = None, spec: Preprocessing = SPEC, **options: Any
) -> Encoder:
    tower = ImageTower(model or FakeModel(), spec)
    checkpoint = Checkpoint("fake", "r1", Path("fake"))
    options = {"text_tower": None, **options}
    return Encoder(tower, checkpoint=checkpoint, preprocessing=spec, **options)


def encode_both(tower: torch.nn.Module | None = None) -> Encoder:
    text = TextSpec(max_tokens=5, score="softmax", logit_scale=1.0, logit_bias=0.0)
    return encode(text_tower=tower or FakeTextTower(), text=text, tokenizer_json="{}")


def load(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(ModelSettings(id=str(folder), precision="float32", **settings))


def noise(size: int, height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    shape = (size, height, width, 3)
    return np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)
