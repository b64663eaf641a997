"""Resizing of RGB pixels as Pillow does it, within one grey level and several times faster.

Knows sizes and filters; which ones a model wants is said elsewhere.
"""

from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# torch's antialiased 8-bit interpolation descends from Pillow-SIMD; these are its names for the
# filters that it shares with Pillow.
_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}

# Below this, where Pillow is quick as well, torch's 16-bit weights were seen two levels off.
_LEAST_SHRINKAGE = 1.5

# torch imports for seconds, which threads must not do at the same time.
_IMPORTING = Lock()


def resize(
    pixels: NDArray[np.uint8], width: int, height: int, resample: Image.Resampling
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, C-contiguous and writable, to (`height`, `width`, 3). Releases the GIL.

    At most one grey level from Pillow's `Image.resize`, whose filters `resample` names; on noise
    in black and white, a value in 10,000 is two off.
    """
    from_height, from_width = pixels.shape[:2]
    mode = _TORCH_MODES.get(resample)
    shrinkage = min(from_width / width, from_height / height)
    # Then Pillow 13 begins with the columns, torch always with the rows, and it matters where
    # pixels leave the range in between (30 grey levels, on noise; found by trying, and see
    # https://github.com/python-pillow/Pillow/pull/9549).
    columns_first = from_height - height > 2 * (from_width - width)
    if mode is None or shrinkage < _LEAST_SHRINKAGE or columns_first:
        return np.array(Image.fromarray(pixels).resize((width, height), resample))
    with _IMPORTING:
        torch = _torch()
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        planes, size=(height, width), mode=mode, antialias=True
    )
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return result


@cache
def _torch() -> Any:
    import torch  # hundreds of megabytes, and not for whoever only builds the application

    return torch
