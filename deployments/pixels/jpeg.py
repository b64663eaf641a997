"""The common photo, an upright JPEG in sRGB, straight into an array.

libjpeg-turbo without Pillow around it: the same pixels, without Pillow's own layout of them (four
bytes each) and the two copies out of it. Anything else is left to Pillow, errors included.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from deployments.pixels.colour import is_srgb, orientation


def decode_plain(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of `data`, which Pillow has opened as `image`: RGB, uint8 (H, W, 3).

    None where there is more to do than to decode, and where anything is odd about the file: then
    Pillow says what is to become of it.
    """
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return None
    if orientation(image) != 1 or not is_srgb(image.info.get("icc_profile")):
        return None
    try:
        # Pillow's size has been checked, and this one is the one that is allocated.
        if simplejpeg.decode_jpeg_header(data)[:2] != image.size[::-1]:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return pixels
