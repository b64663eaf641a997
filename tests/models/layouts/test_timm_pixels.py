"""Images are resized, cropped and normalised as timm's own transform does, byte for byte."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.layouts.timm_pixels import read_preprocessing
from deployments.pixels.geometry import fit
from deployments.wire import PixelSpec
from tests.models.odd_images import picture

SIZES = [(1, 1), (2, 3), (31, 33), (160, 160), (161, 159), (427, 320), (333, 17), (1, 200)]
CONFIGS: list[dict[str, Any]] = [
    {"crop_mode": mode, "crop_pct": pct, "input_size": (3, *height_width)}
    for mode in ("center", "squash", "border")
    for pct, height_width in (
        *((0.875, (160, 160)), (1.0, (97, 97)), (1.15, (97, 97))),
        *((0.95, (128, 64)), (1.0, (63, 100)), (1.15, (63, 100))),
    )
]
OTHERS: list[dict[str, Any]] = [
    *({"interpolation": name} for name in ("nearest", "bilinear", "lanczos", "box", "hamming")),
    {"mean": (0.2, 0.7, 0.1), "crop_mode": "border"},
    {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "crop_pct": 0.9},
    {"mean": (0.5,), "std": (0.25,)},
]


def resolved(changes: dict[str, Any]) -> dict[str, Any]:
    cfg = {"input_size": (3, 160, 160), "interpolation": "bicubic", "crop_pct": 0.9}
    found: dict[str, Any] = timm.data.resolve_data_config(pretrained_cfg=cfg | changes)
    return found


@cache
def images() -> list[Image.Image]:
    return [Image.fromarray(picture(*size, seed=n)) for n, size in enumerate(SIZES)]


@pytest.mark.parametrize("changes", [*CONFIGS, *OTHERS], ids=json.dumps)
def test_pixels_are_those_of_timms_transform(changes: dict[str, Any]) -> None:
    config = resolved(changes)
    spec = read_preprocessing(Path("config.json"), config).pixels
    assert isinstance(spec, PixelSpec)
    transform: Any = timm.data.create_transform(**config, is_training=False, normalize=False)
    for image in images():
        try:
            expected = transform(image).permute(1, 2, 0).numpy()
        except ValueError:
            assert min(image.size) == 1  # timm resizes it to nothing
            continue
        np.testing.assert_array_equal(fit(image, spec), expected, str(image.size))


@pytest.mark.parametrize("changes", OTHERS, ids=json.dumps)
def test_values_are_those_of_timms_transform(changes: dict[str, Any]) -> None:
    config = resolved(changes)
    read = read_preprocessing(Path("config.json"), config)
    assert isinstance(read.pixels, PixelSpec)
    transform: Any = timm.data.create_transform(**config, is_training=False)
    image = images()[-1]
    values = fit(image, read.pixels) * np.array(read.scale) + np.array(read.shift)
    expected = transform(image).permute(1, 2, 0).to(torch.float64).numpy()
    np.testing.assert_allclose(values, expected, atol=2e-6)


@pytest.mark.parametrize("pct", [1e-9, 5e-324, 0, -1, "all"])
def test_a_crop_of_next_to_nothing_is_refused(pct: object) -> None:
    with pytest.raises(CheckpointError, match=r"crop_pct is .* should be a number, 0\.1 or more"):
        read_preprocessing(Path("config.json"), {**resolved({}), "crop_pct": pct})
