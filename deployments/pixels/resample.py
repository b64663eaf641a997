"""Resizing: by Pillow, or several times faster by torch, which may be off by a grey level.

Which models tolerate that is decided elsewhere.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pillow's filters that torch has too for 8-bit pixels; its code derives from Pillow-SIMD.
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def resize(
    image: Image.Image | NDArray[np.uint8],
    width_height: tuple[int, int],
    resample: Image.Resampling,
    *,
    exact: bool,
) -> NDArray[np.uint8]:
    """`image`, RGB, resized to `width_height`: uint8 (height, width, 3), perhaps read-only.

    With `exact`, the pixels are Pillow's. Without, at most 1 % of the values of noise and 0.4 % of
    a photo's are off by one grey level, or by two when enlarging.
    """
    before = width_height_of(image)
    if width_height == before:
        return np.asarray(image)
    if exact or resample not in _MODES or _columns_first(before, width_height):
        return np.asarray(as_image(image).resize(width_height, resample))
    import torch  # takes two seconds, once

    torch.set_num_threads(1)  # for this thread: other processors have images of their own
    # Through DLPack, because torch would otherwise warn about read-only arrays.
    pixels = torch.utils.dlpack.from_dlpack(np.asarray(image)).permute(2, 0, 1)[None]
    width, height = width_height
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=_MODES[resample], antialias=True
    )
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return result


def width_height_of(image: Image.Image | NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) in pixels."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def as_image(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """`image` as Pillow's; an array is copied."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def _columns_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether Pillow 13 resizes columns before rows: found by experiment, right for 300 of 300
    sizes.

    torch always resizes rows first, which gives another result because of rounding in between.
    """
    return before[1] - after[1] > 2 * (before[0] - after[0])
