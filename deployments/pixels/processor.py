"""A checkpoint's own image processor, where resize and crop cannot match it exactly.

Builds it once per specification; which one a checkpoint needs is decided elsewhere.
"""

import json
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments import torchvision_operators
from deployments.errors import ImageTooLarge, UnsupportedImage
from deployments.pixels.geometry import MAX_INTERMEDIATE_PIXELS
from deployments.wire import ProcessorSpec

# transformers imports lazily; of two threads that do so at once, one could see a module that is
# only half imported.
_BUILDING = Lock()


def process(image: Image.Image, spec: ProcessorSpec, *, max_pixels: int) -> NDArray[np.float32]:
    """The processor's output for `image`, RGB of any size: float32 (H, W, 3), C-contiguous.

    Thread-safe. The very first call imports transformers, and with it torch, which takes seconds
    and a few hundred megabytes.

    Raises ImageTooLarge for an image so long and narrow that the processor could need much more
    memory than for any other of `max_pixels`, UnsupportedImage for one that it rejects.
    """
    _refuse_strip(image.size, spec.height_width, max_pixels)
    with _BUILDING:
        processor = _build(spec)
    try:
        values = processor(image, return_tensors="np")["pixel_values"]
    except ValueError:
        raise _unsuitable(image) from None
    if values.shape != (1, 3, *spec.height_width):
        raise _unsuitable(image)
    return np.ascontiguousarray(values[0].transpose(1, 2, 0), dtype=np.float32)


@cache
def _build(spec: ProcessorSpec) -> Any:
    torchvision_operators.declare()
    import transformers

    return getattr(transformers, spec.name).from_dict(json.loads(spec.config))


def _refuse_strip(
    width_height: tuple[int, int], height_width: tuple[int, int], max_pixels: int
) -> None:
    """Raises ImageTooLarge for an image that resizing to `height_width` could make huge.

    Processors may first resize the short side, keeping the aspect ratio, or pad to a square: for
    1 by 50 million pixels, either takes many gigabytes. The result of either may have at most twice
    the pixels of the largest image that is accepted.
    """
    long, short = max(width_height), min(width_height)
    limit = max(2 * max_pixels, MAX_INTERMEDIATE_PIXELS)
    if max(height_width) ** 2 * long // short > limit or long**2 > limit:
        raise ImageTooLarge(
            f"The image of {width_height[0]} x {width_height[1]} pixels is too long and narrow for "
            "this model. Send a part of it."
        )


def _unsuitable(image: Image.Image) -> UnsupportedImage:
    return UnsupportedImage(
        f"The model does not take an image of {image.width} x {image.height} pixels. Send one of "
        "another size or shape."
    )
