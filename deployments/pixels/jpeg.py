"""A fast path for the common photo, an upright JPEG in sRGB: straight into an array.

libjpeg-turbo without Pillow gives the same pixels, but avoids Pillow's layout (four bytes each) and
two copies out of it. Everything else is left to Pillow, errors included.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from deployments.pixels.colour import is_srgb, orientation


def decode_plain(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of `data`, which Pillow has opened as `image`: RGB, uint8 (H, W, 3).

    None if the image needs more than decoding, or if anything is odd about the file: Pillow then
    handles it.
    """
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return None
    if orientation(image) != 1 or not is_srgb(image.info.get("icc_profile")):
        return None
    try:
        # The size that Pillow reads has been checked, but this one is allocated.
        if simplejpeg.decode_jpeg_header(data)[:2] != image.size[::-1]:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return pixels
