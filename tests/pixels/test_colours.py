"""Samples of every depth and colour space become the colours that a person sees."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from deployments.errors import UnsupportedImage
from tests.pixels.pictures import (
    BLACK,
    BLUE,
    RED,
    WHITE,
    close_to,
    colour,
    pixels,
    png,
    quadrants,
    saved,
)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    for value, expected in ((0, 0), (255, 0), (0x4000, 0x40), (0x8000, 0x80), (65535, 255)):
        grey = struct.pack(">H", value)
        assert colour(png(8, 8, 16, 0, [grey * 8] * 8)) == (expected,) * 3
        assert colour(png(8, 8, 16, 2, [grey * 24] * 8)) == (expected,) * 3
        opaque = grey + b"\xff\xff"
        assert colour(png(8, 8, 16, 4, [opaque * 8] * 8)) == (expected,) * 3


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bit_tiffs_of_either_byte_order_are_scaled(
    mode: str, compression: str | None
) -> None:
    samples = np.full((8, 8), 0x8040, ">u2" if mode == "I;16B" else "<u2")
    image = Image.fromarray(samples)
    assert image.mode == mode
    assert colour(saved(image, "TIFF", compression=compression)) == (0x80,) * 3


def test_thirty_two_bit_samples_are_scaled_by_what_they_hold() -> None:
    for value, expected in ((0x8000, 0x80), (0x40000000, 0x80), (-5, 0)):
        image = Image.fromarray(np.full((8, 8), value, np.int32))
        assert image.mode == "I"
        assert colour(saved(image, "TIFF")) == (expected,) * 3


def test_floating_point_samples_are_unsupported() -> None:
    with pytest.raises(UnsupportedImage):
        pixels(saved(Image.new("F", (8, 8), 0.5), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_one_bit_grey_and_palette_images_keep_their_colours(mode: str, kind: str) -> None:
    black_and_white = Image.new("RGB", (8, 8), BLACK)
    black_and_white.paste(WHITE, (4, 0, 8, 8))
    found = pixels(saved(black_and_white.convert(mode), kind))
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    for ink, expected in (
        ((0, 0, 0, 0), WHITE),
        ((0, 0, 0, 255), BLACK),
        ((0, 255, 255, 0), RED),
        ((255, 255, 0, 0), BLUE),
    ):
        assert colour(saved(Image.new("CMYK", (8, 8), ink), kind)) == close_to(expected)


def test_ycck_as_photoshop_writes_it_is_understood() -> None:
    # Stored samples are inverted; Adobe's transform 2 says that three of them are YCbCr.
    data = saved(Image.new("CMYK", (8, 8), (55, 127, 127, 0)), "JPEG")
    adobe = data.index(b"Adobe\0") + 11
    assert data[adobe] == 0
    assert colour(data[:adobe] + b"\x02" + data[adobe + 1 :]) == close_to((55, 55, 55), 3)


def test_lab_becomes_rgb() -> None:
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(quadrants(), srgb, lab, outputMode="LAB")
    assert image is not None
    found = pixels(saved(image, "TIFF"))
    assert np.abs(found.astype(int) - np.asarray(quadrants())).max() <= 25  # 8-bit Lab is coarse
