"""Settings of a processor in a folder, what is read from them, and the processor's own values."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.models.spec import Preprocessing, read_preprocessing

CLIP: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 48, "width": 56},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
GONE = object()
Array = NDArray[np.float64]


def write(folder: Path, **changes: object) -> Path:
    keys = {key: value for key, value in {**CLIP, **changes}.items() if value is not GONE}
    (folder / "preprocessor_config.json").write_text(json.dumps(keys))
    return folder


def read(folder: Path, **changes: object) -> Preprocessing:
    return read_preprocessing(write(folder, **changes))


@cache
def images() -> list[Image.Image]:
    """Noise, which is hardest to resize identically, in odd sizes; the last image is grey."""
    random = np.random.default_rng(0)
    sizes = [(1, 1), (8, 8), (7, 280), (3200, 80), (2000, 1500), (83, 120), (224, 224), (501, 333)]
    noise = [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in sizes]
    grey = np.repeat(random.integers(0, 256, (77, 131, 1), dtype=np.uint8), 3, axis=2)
    return [Image.fromarray(image) for image in (*noise, grey)]


def theirs(processor: Any, image: Image.Image) -> Array:
    """(H, W, 3) as the model gets it."""
    values = processor(image, return_tensors="np")["pixel_values"]
    return np.asarray(values[0], np.float64).transpose(1, 2, 0)
