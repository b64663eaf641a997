"""The photos that models are tried on are real, and differ from each other."""

import numpy as np
import pytest
from PIL import ImageOps

from deployments.models.probes import least_cosine, photos
from deployments.wire import PatchSpec, PixelSpec, ProcessorSpec


def test_the_photos_are_real_and_differ() -> None:
    pixels = photos(PixelSpec(resize=("exact", 32, 48), resample=3, crop=None))
    assert pixels.shape == (8, 32, 48, 3)
    assert pixels.dtype == np.uint8
    flat = pixels.reshape(8, -1).astype(float)
    assert np.corrcoef(flat)[~np.eye(8, dtype=bool)].max() < 0.9


def test_photos_for_a_checkpoints_own_processor_are_floats_about_zero() -> None:
    values = photos(ProcessorSpec("X", "{}", (32, 48)))
    assert values.shape == (8, 32, 48, 3)
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 2


@pytest.mark.parametrize(("patch", "most"), [(16, 256), (14, 1000), (2, 4), (4, 1)])
def test_photos_as_patches_keep_their_aspect_ratio(patch: int, most: int) -> None:
    spec = PatchSpec(patch, most, 2)
    packed = photos(spec)
    assert packed.shape == (8, 1 + most, patch * patch, 3)
    grids = spec.grids(packed)
    number = grids.prod(axis=1)
    assert number.min() > most / 2
    assert number.max() <= most
    for image, real in zip(packed, number, strict=True):
        assert image[1 : 1 + real].any()
        assert not image[1 + real :].any()
    if most > 100:
        assert len({tuple(grid) for grid in grids}) > 2


def test_photos_can_be_turned_first() -> None:
    spec = PixelSpec(resize=("exact", 32, 32), resample=3, crop=None)
    straight, mirrored = photos(spec), photos(spec, ImageOps.mirror)
    assert not (straight == mirrored).all()
    assert np.abs(straight.astype(int) - mirrored[:, :, ::-1]).mean() < 4


@pytest.mark.parametrize(
    ("row", "expected"), [([2.0, 0.0], 1.0), ([0.0, 1.0], 0.0), ([np.nan, 1.0], -1.0)]
)
def test_the_least_cosine_is_that_of_the_worst_row(row: list[float], expected: float) -> None:
    a = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    b = np.array([[3.0, 0.0], row], np.float32)
    assert least_cosine(a, b) == pytest.approx(expected)


def test_the_least_cosine_is_that_of_the_worst_of_several_vectors() -> None:
    a = np.ones((2, 3, 2), np.float32)
    b = a.copy()
    b[1, 2] = (1, -1)
    assert least_cosine(a, b) == pytest.approx(0.0)
    assert least_cosine(a, a) == pytest.approx(1.0)
