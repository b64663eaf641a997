"""The faster way from a photo to pixels: what it may change, and where it is not taken."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms

from deployments.errors import CorruptImage
from deployments.pixels.decode import decode
from deployments.pixels.jpeg import decode_plain
from deployments.wire import PixelSpec

EXACT = PixelSpec(("shortest_edge", 64), 3, (64, 64))
FASTER = replace(EXACT, exact=False)


def picture(size: tuple[int, int] = (400, 300)) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes, spec: PixelSpec) -> NDArray[np.int16]:
    found = decode(data, spec, max_pixels=10**7).pixels
    assert found.shape == (*spec.height_width, 3)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    return found.astype(np.int16)


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (200, 3000), (3000, 200), (40, 30)])
@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_faster_pixels_are_a_grey_level_or_two_off_here_and_there(
    size: tuple[int, int], resample: int, form: str
) -> None:
    data = saved(picture(size), form)
    off = np.abs(
        pixels(data, replace(FASTER, resample=resample))
        - pixels(data, replace(EXACT, resample=resample))
    )
    assert off.max() <= 2
    assert (off > 0).mean() < 0.05
    if resample not in (2, 3):  # torch has no such filter
        assert off.max() == 0


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 95, "subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"optimize": True, "restart_marker_rows": 1},
        {"keep_rgb": True},
    ],
)
def test_a_plain_jpeg_has_pillows_pixels(options: dict[str, Any]) -> None:
    data = saved(picture((123, 77)), **options)
    found = decode_plain(data, opened(data))
    assert found is not None
    assert (found == np.asarray(opened(data))).all()


def upside_down() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return saved(picture(), exif=exif)


def grey_with_a_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return saved(picture().convert("L"), icc_profile=profile)


@pytest.mark.parametrize(
    "data",
    [
        upside_down(),
        grey_with_a_profile(),
        saved(picture().convert("CMYK")),
        saved(picture(), "PNG"),
        saved(picture())[:-400],
    ],
    ids=["turned", "grey with a profile", "CMYK", "PNG", "cut short"],
)
def test_any_other_file_is_left_to_pillow(data: bytes) -> None:
    assert decode_plain(data, opened(data)) is None


def test_a_jpeg_cut_short_is_corrupt_in_the_faster_way_too() -> None:
    with pytest.raises(CorruptImage):
        decode(saved(picture())[:-400], FASTER, max_pixels=10**7)


def test_a_jpeg_whose_size_libjpeg_reads_differently_is_left_to_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whatever libjpeg would make of a file, no more is allocated than was checked.
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg_header", lambda data: (30_000, 30_000, "YCbCr", "420")
    )
    data = saved(picture())
    assert decode_plain(data, opened(data)) is None
