"""Photos and sentences that come with raylens, to test a model on before it serves.

Knows nothing of models but the shape of their input.
"""

import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deployments.wire import ImageSpec, PatchSpec, Pixels, ProcessorSpec

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


def photos(
    spec: ImageSpec, turn: Callable[[Image.Image], Image.Image] = lambda image: image
) -> Pixels:
    """8 real photos in the shape and dtype that the model wants, (8, *shape), each turned first.

    Cropped rather than preprocessed as the checkpoint says: every precision gets the same.
    """
    images = []
    for file in sorted(files("deployments.models").joinpath("photos").iterdir(), key=str):
        if file.name.endswith(".jpg"):
            with file.open("rb") as opened, Image.open(opened) as image:
                images.append(_fitted(turn(image.convert("RGB")), spec))
    return np.stack(images)


def _fitted(image: Image.Image, spec: ImageSpec) -> Pixels:
    height, width = spec.height_width
    if isinstance(spec, PatchSpec):
        rows = max(1, int(math.sqrt(spec.max_patches * image.height / image.width)))
        height, width = spec.patch * rows, spec.patch * (spec.max_patches // rows)
    pixels: NDArray[np.uint8] = np.asarray(ImageOps.fit(image, (width, height)))
    if isinstance(spec, PatchSpec):
        return spec.pack(pixels)
    if isinstance(spec, ProcessorSpec):  # about what a processor gives
        return ((pixels - np.float32(127.5)) / np.float32(64)).astype(np.float32)
    return pixels


def least_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The lowest cosine of a vector of `a` with the one of `b` at the same place, in arrays whose
    last axis is the vectors'; -1 where one is not finite."""
    a, b = (x.astype(np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
    is_padding = ~a.any(axis=1) & ~b.any(axis=1)  # behind a text with a vector for each token
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.where(is_padding, 1.0, np.sum(a * b, axis=1) / np.maximum(norms, 1e-30))
    least = float(cosines.min())
    return least if np.isfinite(least) else -1.0
