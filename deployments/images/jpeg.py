"""JPEG bytes to RGB pixels by libjpeg-turbo, without the detour over a Pillow image.

For the files of which Pillow, with the same library, would make the same pixels in twice the
time. All others, broken ones among them, are left to it.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image


def decode_jpeg(
    data: bytes, image: Image.Image, at_least: tuple[int, int] | None = None
) -> NDArray[np.uint8] | None:
    """(H, W, 3) of the file that Pillow has opened as `image`; None if Pillow should decode it.

    Colours are as in the file, not turned upright. With `at_least`, (width, height), the
    decoder may reduce the image on the way by a half, a quarter or an eighth, to no less than that.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    width, height = at_least or (0, 0)
    try:
        if simplejpeg.decode_jpeg_header(data)[1::-1] != image.size:
            return None  # it reads another header than the one that was checked
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_width=width, min_height=height, min_factor=2
        )
    except ValueError:  # also where libjpeg only warns; Pillow knows which to forgive
        return None
    return pixels
