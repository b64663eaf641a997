"""The halves of a model as two torch modules: pixels to vectors, tokens to vectors.

Each holds its own weights alone, so that it can be cast or exported without the other, and has no
data-dependent Python, so that it can be traced. What is in them is left to `layouts`.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from deployments.models.spec import Preprocessing
from deployments.wire import PatchSpec


class ImageTower(nn.Module):
    """Scaling, normalisation, and a vision model."""

    scale: Tensor
    shift: Tensor

    def __init__(self, vision: nn.Module, preprocessing: Preprocessing) -> None:
        """`vision` is as in `LoadedCheckpoint`."""
        super().__init__()
        self.vision = vision
        self._flip_channels = preprocessing.flip_channels
        for name, channels in (("scale", preprocessing.scale), ("shift", preprocessing.shift)):
            self.register_buffer(name, torch.tensor(channels).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3), uint8 or float32, to float32 (N, D) or (N, P, D), not normalised."""
        vectors: Tensor = self.vision(self._normalised(pixels))
        return vectors.float()

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) to (N, 3, H, W) in the precision of the model."""
        values = torch.addcmul(self.shift, pixels.permute(0, 3, 1, 2).float(), self.scale)
        if self._flip_channels:
            values = values.flip(1)
        return values.to(next(self.vision.parameters()).dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Called by `.to(…)`. Pixels are normalised in float32, whatever the model runs in."""
        scale, shift = self.scale, self.shift
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale, self.shift = scale.to(self.scale.device), shift.to(self.shift.device)
        return self


class PatchTower(ImageTower):
    """The same for a vision model that takes patches, and each image's grid of them."""

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, *shape) of a `PatchSpec` to float32 (N, D), not normalised."""
        header = pixels[:, 0].flatten(1)[:, :4].long()
        # At least one patch, because `GraphTower` fills up batches with zeros.
        grids = (header[:, ::2] + 256 * header[:, 1::2]).clamp(min=1)
        values = self._normalised(pixels[:, 1:]).permute(0, 2, 3, 1).flatten(2)
        vectors: Tensor = self.vision(values, grids)
        return vectors.float()


def image_tower(vision: nn.Module, preprocessing: Preprocessing) -> ImageTower:
    """The tower for what the preprocessing makes of images."""
    takes_patches = isinstance(preprocessing.pixels, PatchSpec)
    return (PatchTower if takes_patches else ImageTower)(vision, preprocessing)


class Towers(NamedTuple):
    """Both halves of a model; `text` is None where it has no text tower."""

    image: nn.Module
    text: nn.Module | None
