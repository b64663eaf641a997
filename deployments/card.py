"""What the model deployment tells the ingress about the model it holds. Plain values only."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """The geometry a checkpoint wants: resize, then centre crop, all in uint8 RGB.

    `resize` is ("shortest_edge", n), keeping the aspect ratio, or ("exact", height, width),
    or None; `crop` is (height, width) in pixels, or None. `resample` is Pillow's filter number
    (0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming).
    Scaling and normalisation are not here: they happen inside the model's graph.
    """

    resize: tuple[Literal["shortest_edge"], int] | tuple[Literal["exact"], int, int] | None
    resample: int
    crop: tuple[int, int] | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of every image that reaches the model."""
        if self.crop is not None:
            return self.crop
        if self.resize is not None and self.resize[0] == "exact":
            return self.resize[1], self.resize[2]
        raise ValueError("a pixel specification needs a crop or an exact size")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One loaded model, as `/v1/models` and the handle's `info()` show it."""

    id: str
    revision: str | None
    dimensions: int
    modalities: tuple[str, ...]
    pixels: PixelSpec
    precision: str
    device: str
    device_reason: str
    loaded_unix_s: int
