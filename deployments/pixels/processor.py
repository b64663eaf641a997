"""A checkpoint's own image processor, for what resize and crop cannot say exactly.

Builds it once per specification; which one a checkpoint needs is said elsewhere.
"""

import json
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.errors import ImageTooLarge, UnsupportedImage
from deployments.pixels.geometry import MAX_INTERMEDIATE_PIXELS
from deployments.wire import ProcessorSpec

# transformers imports lazily, which threads must not do at the same time: one of them could meet
# a module that is half imported.
_BUILDING = Lock()


def process(image: Image.Image, spec: ProcessorSpec, *, max_pixels: int) -> NDArray[np.float32]:
    """What the processor makes of `image`, RGB of any size: float32 (H, W, 3), C-contiguous.

    Thread-safe. The first call of all imports transformers, and that torch: it takes seconds and
    a few hundred megabytes.

    Raises ImageTooLarge for an image so long and narrow that the processor could need much more
    memory than for any other of `max_pixels`, UnsupportedImage for one that it does not take.
    """
    _refuse_strip(image.size, spec.size, max_pixels)
    with _BUILDING:
        processor = _build(spec)
    try:
        values = processor(image, return_tensors="np")["pixel_values"]
    except ValueError:
        raise _unsuitable(image) from None
    if values.shape != (1, 3, *spec.size):
        raise _unsuitable(image)
    return np.ascontiguousarray(values[0].transpose(1, 2, 0), dtype=np.float32)


@cache
def _build(spec: ProcessorSpec) -> Any:
    import transformers

    return getattr(transformers, spec.name).from_dict(json.loads(spec.config))


def _refuse_strip(size: tuple[int, int], target: tuple[int, int], max_pixels: int) -> None:
    """Processors may resize the short side to the target's, keeping the aspect ratio, or pad to
    a square first: of 1 by 50 million pixels either makes an image of many gigabytes.

    Neither may have more than twice the pixels of the largest image that is accepted.
    """
    long, short = max(size), min(size)
    limit = max(2 * max_pixels, MAX_INTERMEDIATE_PIXELS)
    if max(target) ** 2 * long // short > limit or long**2 > limit:
        raise ImageTooLarge(
            f"The image of {size[0]} x {size[1]} pixels is too long and narrow for this model. "
            "Send a part of it."
        )


def _unsuitable(image: Image.Image) -> UnsupportedImage:
    return UnsupportedImage(
        f"The model does not take an image of {image.width} x {image.height} pixels. Send one of "
        "another size or shape."
    )
