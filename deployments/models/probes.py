"""Photos and sentences that come with raylens, to test a model on before it serves.

Knows nothing of models but the shape of their input.
"""

from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deployments.wire import Pixels, PixelSpec, ProcessorSpec

SENTENCES = (
    "",
    "a photo of a cat.",
    "dogs",
    "A rocket on its launch pad at night",
    "two cups of coffee on a wooden table, seen from above",
    "portrait of an astronaut in an orange suit",
    "Galaxies, thousands of them, in a photograph of the Hubble telescope's deep field.",
    "receipt 14.90 EUR, paid in cash",
)


def photos(spec: PixelSpec | ProcessorSpec) -> Pixels:
    """8 real photos in the height, width and dtype that the model wants, (8, H, W, 3).

    Cropped rather than preprocessed as the checkpoint says: every precision gets the same.
    """
    height, width = spec.height_width
    images = []
    for file in sorted(files("deployments.models").joinpath("photos").iterdir(), key=str):
        if file.name.endswith(".jpg"):
            with file.open("rb") as opened, Image.open(opened) as image:
                images.append(np.asarray(ImageOps.fit(image.convert("RGB"), (width, height))))
    stack: NDArray[np.uint8] = np.stack(images)
    if isinstance(spec, ProcessorSpec):  # about what a processor gives
        return ((stack - np.float32(127.5)) / np.float32(64)).astype(np.float32)
    return stack


def least_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The lowest cosine of a row of `a` with its row of `b`; -1 where a row is not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    least = float((np.sum(a * b, axis=1) / np.maximum(norms, 1e-30)).min())
    return least if np.isfinite(least) else -1.0
