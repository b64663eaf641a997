"""Images of their own aspect ratio, resized and cut into patches, as SigLIP 2 NaFlex takes them."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.errors import ImageTooLarge
from deployments.pixels.geometry import fit
from deployments.pixels.resample import width_height_of
from deployments.wire import PatchSpec, PixelSpec, Resize

# Scales are searched between these, to this precision, by halves (see `grid_of`).
_PRECISION = 1e-5
_LEAST, _MOST = _PRECISION / 10, 100.0


def cut(image: Image.Image | NDArray[np.uint8], spec: PatchSpec) -> NDArray[np.uint8]:
    """`image`, RGB of any size, from Pillow or as (H, W, 3), to an array of the specification's
    shape, as `PatchSpec.pack` makes it.

    Raises ImageTooLarge for an image that is so long that even a line of patches does not hold it.
    """
    width, height = width_height_of(image)
    rows, columns = grid_of(width, height, spec)
    if rows * columns > spec.max_patches:
        raise ImageTooLarge(
            f"The image of {width} x {height} pixels is too long and narrow for this model. Send a "
            "part of it."
        )
    whole: Resize = "exact", rows * spec.patch, columns * spec.patch
    return spec.pack(fit(image, PixelSpec(whole, spec.resample, None, exact=spec.exact)))


def grid_of(width: int, height: int, spec: PatchSpec) -> tuple[int, int]:
    """How many patches an image of this size has, in height and in width.

    The largest scale is taken at which its sides, rounded up to whole patches, hold no more than
    `max_patches`. It is found as `get_image_size_for_max_num_patches` does in transformers'
    image_processing_siglip2, whose scales decide where it stops.
    """

    def at(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(edge * scale / spec.patch)) for edge in (height, width))
        return rows, columns

    least, most = _LEAST, _MOST
    while most - least >= _PRECISION:
        scale = (least + most) / 2
        if math.prod(at(scale)) <= spec.max_patches:
            least = scale
        else:
            most = scale
    return at(least)
