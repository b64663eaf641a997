"""Images become the patches that transformers' NaFlex processor makes of them, bit for bit."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    get_image_size_for_max_num_patches,
)

from deployments.errors import ImageTooLarge
from deployments.pixels.decode import decode
from deployments.pixels.patches import cut, grid_of
from deployments.wire import PatchSpec, Pixels
from tests.pixels.pictures import pixels, quadrants, saved

NAFLEX = PatchSpec(patch=16, max_patches=256, resample=2)
SIZES = (
    *((1, 1), (8, 8), (16, 16), (256, 256), (257, 255), (640, 480), (333, 1000), (31, 33)),
    *((4000, 100), (100, 4000), (1, 300), (300, 1), (4097, 3), (1, 10_000), (10_000, 1)),
)


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def theirs(image: Image.Image, spec: PatchSpec) -> tuple[Pixels, tuple[int, int], int]:
    """Patches, grid and how many are not hidden."""
    processor = Siglip2ImageProcessorPil(
        patch_size=spec.patch,
        max_num_patches=spec.max_patches,
        resample=spec.resample,
        do_rescale=False,
        do_normalize=False,
    )
    found = processor(image, return_tensors="np")
    rows, columns = found["spatial_shapes"][0].tolist()
    shown = int(found["pixel_attention_mask"].sum())
    assert found["pixel_attention_mask"][0, :shown].all()
    return found["pixel_values"][0], (rows, columns), shown


@pytest.mark.parametrize(
    "spec", [NAFLEX, PatchSpec(16, 1024, 3), PatchSpec(14, 100, 2), PatchSpec(2, 7, 2)]
)
def test_patches_equal_the_hugging_face_processors_with_pillow(spec: PatchSpec) -> None:
    for size in SIZES:
        found = pixels(saved(noise(*size), "PNG"), spec)
        patches, grid, shown = theirs(noise(*size), spec)
        assert found.shape == spec.shape, size
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        assert tuple(spec.grids(found[None])[0]) == grid, size
        assert shown == grid[0] * grid[1]
        assert (found[1:].reshape(spec.max_patches, -1) == patches).all(), size


def test_the_grid_is_theirs_for_any_size() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        width, height = (int(edge) for edge in np.exp(random.uniform(0, 16, 2)))
        spec = PatchSpec(int(random.integers(2, 33)), int(random.integers(1, 4097)), 2)
        expected = get_image_size_for_max_num_patches(height, width, spec.patch, spec.max_patches)
        rows, columns = grid_of(width, height, spec)
        assert (rows * spec.patch, columns * spec.patch) == expected


def test_an_image_is_turned_upright_before_it_is_cut() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = pixels(saved(quadrants(size=24).resize((200, 40)), "PNG", exif=exif), NAFLEX)
    rows, columns = NAFLEX.grids(turned[None])[0]
    assert rows > 4 * columns
    upright = quadrants(size=24).resize((200, 40)).transpose(Image.Transpose.ROTATE_270)
    assert (turned == pixels(saved(upright, "PNG"), NAFLEX)).all()


def test_faster_resizing_moves_values_by_a_grey_level_and_fast_decoding_by_none() -> None:
    data = saved(noise(90, 60).resize((1200, 800)), "JPEG")
    exact = pixels(data, NAFLEX)
    faster = pixels(data, PatchSpec(16, 256, 2, exact=False)).astype(int)
    assert np.abs(faster - exact).max() <= 1
    assert (decode(data, NAFLEX, max_pixels=10**7, fast=True).pixels == exact).all()


@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1)])
@pytest.mark.parametrize("most", [256, 1024])
def test_a_strip_needs_little_memory(size: tuple[int, int], most: int) -> None:
    data = saved(Image.new("L", size, 77), "PNG")
    core = Image.core  # type: ignore[attr-defined]  # which Pillow does not type
    core.reset_stats()
    found = pixels(data, PatchSpec(16, most, 2))
    blocks = core.get_stats()["new_count"], core.get_stats()["allocated_blocks"]
    number = PatchSpec(16, most, 2).grids(found[None]).prod()
    assert number > most / 2
    assert (found[1 : 1 + number] == 77).all()
    assert blocks[1] <= 8, blocks  # of 16 MB


def test_an_image_that_a_line_of_patches_does_not_hold_is_too_large() -> None:
    line = np.zeros((1, 40_000_000, 3), np.uint8)
    with pytest.raises(ImageTooLarge, match="40000000 x 1 pixels is too long and narrow"):
        cut(line, PatchSpec(16, 1, 2))
