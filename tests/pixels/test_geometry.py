"""Images are turned upright, resized and cropped, as Hugging Face processors do with Pillow."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from deployments.pixels.decode import decode
from deployments.wire import PixelSpec
from tests.pixels.pictures import BLUE, CLIP, GREEN, RED, WHITE, pixels, quadrants, saved

# Orientation

STORED = {  # how an upright image is stored under each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    upright = quadrants(size=64).resize((64, 32))
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    found = pixels(saved(stored, kind, exif=exif), PixelSpec(("exact", 32, 64), 0, None))
    assert np.abs(found[8, [8, 56]].astype(int) - (RED, GREEN)).max() <= 6
    assert np.abs(found[24, [8, 56]].astype(int) - (BLUE, WHITE)).max() <= 6


def test_a_broken_or_unknown_orientation_is_no_orientation() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    plain = pixels(saved(quadrants(), "PNG"))
    assert (pixels(saved(quadrants(), "PNG", exif=exif)) == plain).all()
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0"):
        assert (pixels(saved(quadrants(), "PNG", exif=block)) == plain).all()


# Size


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 2), (224, 224), (500, 31)])
def test_any_size_becomes_the_size_of_the_specification(size: tuple[int, int]) -> None:
    data = saved(Image.new("RGB", size, RED), "PNG")
    for spec in (CLIP, PixelSpec(("exact", 10, 20), 2, None), PixelSpec(None, 3, (5, 6))):
        assert pixels(data, spec).shape == (*spec.height_width, 3)


def test_a_crop_larger_than_the_image_centres_it_on_black() -> None:
    found = pixels(saved(Image.new("RGB", (3, 2), RED), "PNG"), PixelSpec(None, 3, (5, 6)))
    rows, columns = np.nonzero(found[:, :, 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 3, 2, 4)
    assert found[0].max() == 0


@pytest.mark.parametrize(
    "spec",
    [
        CLIP,
        PixelSpec(("shortest_edge", 257), 2, (224, 200)),
        PixelSpec(("shortest_edge", 32), 3, (51, 40)),  # the crop exceeds the image
        PixelSpec(("exact", 61, 48), 3, None),
        PixelSpec(("exact", 61, 48), 2, (33, 70)),
        PixelSpec(("exact", 64, 64), 0, (57, 57)),
        PixelSpec(None, 3, (100, 31)),
    ],
)
def test_geometry_equals_the_hugging_face_processor_with_pillow(spec: PixelSpec) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if spec.resize is None:
        size = {"shortest_edge": 1}
    elif spec.resize[0] == "exact":
        size = {"height": spec.resize[1], "width": spec.resize[2]}
    else:
        size = {"shortest_edge": spec.resize[1]}
    processor = CLIPImageProcessorPil(
        do_resize=spec.resize is not None,
        size=size,
        resample=spec.resample,
        do_center_crop=spec.crop is not None,
        crop_size={"height": spec.height_width[0], "width": spec.height_width[1]},
        do_rescale=False,
        do_normalize=False,
    )
    random = np.random.default_rng(1)
    for height, width in ((97, 131), (131, 98), (64, 64), (33, 200), (301, 7), (1, 1), (50, 333)):
        noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        theirs = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        assert (pixels(saved(image, "PNG"), spec) == theirs).all(), (height, width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_decoding_keeps_the_picture_and_its_orientation(orientation: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(coarse).resize((1600, 1000)), "JPEG", exif=exif, quality=95)
    spec = PixelSpec(("exact", 50, 80), 3, None)
    exact = decode(data, spec, max_pixels=10**7).pixels
    fast = decode(data, spec, max_pixels=10**7, fast=True).pixels
    assert fast.shape == exact.shape
    assert 0 < np.abs(fast.astype(int) - exact).mean() < 3


@pytest.mark.parametrize(("size", "form"), [((60, 40), "JPEG"), ((600, 400), "PNG")])
def test_fast_decoding_of_small_images_and_other_formats_is_exact(
    size: tuple[int, int], form: str
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    data = saved(Image.fromarray(coarse).resize(size), form)
    spec = PixelSpec(("shortest_edge", 32), 3, (32, 32))
    exact = decode(data, spec, max_pixels=10**7).pixels
    assert (decode(data, spec, max_pixels=10**7, fast=True).pixels == exact).all()


@pytest.mark.parametrize("size", [(8000, 20), (20, 8000)])
@pytest.mark.parametrize("resample", [1, 2, 3, 4, 5])
def test_a_long_strip_looks_as_if_it_had_been_resized_whole(
    size: tuple[int, int], resample: int
) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    strip = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    spec = PixelSpec(("shortest_edge", 224), resample, (224, 224))
    whole = strip.resize((size[0] * 224 // 20, size[1] * 224 // 20), Image.Resampling(resample))
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    difference = np.abs(pixels(saved(strip, "BMP"), spec) - expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) < difference.size / 50


@pytest.mark.parametrize("spec", [CLIP, PixelSpec(("exact", 224, 224), 2, None)])
@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1)])
def test_a_strip_needs_little_memory(spec: PixelSpec, size: tuple[int, int]) -> None:
    data = saved(Image.new("L", size, 77), "PNG")
    core = Image.core  # type: ignore[attr-defined]  # which Pillow does not type
    core.reset_stats()
    found = pixels(data, spec)
    blocks = core.get_stats()["new_count"], core.get_stats()["allocated_blocks"]
    assert found.min() == found.max() == 77
    # Pillow allocates blocks of 16 MB; 400,000 rows of 224 pixels would take more than 20.
    assert blocks[1] <= 8, blocks
