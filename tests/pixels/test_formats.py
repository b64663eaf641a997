"""Files of the allowed formats become RGB pixels; all others are unsupported."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from deployments.errors import UnsupportedImage
from tests.pixels.pictures import BLUE, EVERY_FORMAT, RED, close_to, colour, pixels, saved


@pytest.mark.parametrize("kind", EVERY_FORMAT)
def test_every_allowed_format_becomes_rgb_pixels(kind: str) -> None:
    found = pixels(saved(Image.new("RGB", (20, 10), (200, 100, 50)), kind))
    assert found.dtype == np.uint8
    assert found.shape == (8, 8, 3)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found[4, 4].tolist() == close_to((200, 100, 50), 3)


def test_a_phones_mpo_is_read_as_its_first_picture() -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert colour(data) == close_to(RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_the_first_frame_is_the_image(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    data = saved(first, kind, save_all=True, append_images=[second])
    assert len(ImageSequence.all_frames(Image.open(io.BytesIO(data)))) == 2
    assert colour(data) == close_to(RED, 3)


def test_tiff_is_read_only_if_allowed() -> None:
    data = saved(Image.new("RGB", (8, 8), RED), "TIFF")
    with pytest.raises(UnsupportedImage) as caught:
        pixels(data, allow_tiff=False)
    assert "TIFF" not in caught.value.message
    assert colour(data) == RED


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX", "JPEG2000", "EPS", "ICNS", "DDS"])
def test_formats_that_only_pillow_knows_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedImage):
        pixels(saved(Image.new("RGB", (16, 16), RED), kind))


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0" * 1000,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!DOCTYPE html><html></html>",
        b"%PDF-1.7\n",
        b"8BPS" + b"\0" * 100,  # PSD
        b"SIMPLE  =                    T" + b" " * 100,  # FITS
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",  # HEIC
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"BMW builds cars, and this is a sentence.",
        b"GIF8 is no version",
    ],
)
def test_bytes_of_no_known_format_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        pixels(data)
