import numpy as np
import pytest
from PIL import Image

from deployments.images.resample import resize

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def by_pillow(pixels, width, height, resample):
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample))


@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("noise", ["grey levels", "black and white"])
def test_every_size_is_within_one_grey_level_of_pillow(resample, noise):
    random = np.random.default_rng(0)
    for _ in range(60):
        width, height, to_width, to_height = random.integers(1, 700, 4)
        if random.random() < 0.5:  # as models want it: the aspect ratio kept
            to_height = max(1, height * to_width // width)
            if to_height > 2000:
                continue
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if noise == "black and white":
            pixels = (pixels // 128) * np.uint8(255)
        found = resize(pixels, int(to_width), int(to_height), resample)
        expected = by_pillow(pixels, to_width, to_height, resample)
        assert found.shape == expected.shape
        apart = np.abs(found.astype(int) - expected)
        # What leaves the range in between may add one more level, hardly ever.
        assert apart.max() <= (1 if noise == "grey levels" else 2), (width, height, to_width)
        assert (apart > 1).mean() < 1e-4


@pytest.mark.parametrize("resample", [*Image.Resampling])
def test_growing_is_as_pillow_does_it(resample):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = resize(pixels, 90, 61, resample)
    assert (found == by_pillow(pixels, 90, 61, resample)).all()


@pytest.mark.parametrize(
    "resample", [Image.Resampling.NEAREST, Image.Resampling.LANCZOS, Image.Resampling.BOX]
)
def test_filters_that_torch_lacks_are_pillows(resample):
    pixels = np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert (resize(pixels, 60, 40, resample) == by_pillow(pixels, 60, 40, resample)).all()


def test_a_strip_that_shrinks_along_its_length_has_pillows_pixels():
    pixels = np.random.default_rng(3).integers(0, 2, (1500, 30, 3), dtype=np.uint8) * np.uint8(255)
    assert (resize(pixels, 25, 100, BICUBIC) == by_pillow(pixels, 25, 100, BICUBIC)).all()
