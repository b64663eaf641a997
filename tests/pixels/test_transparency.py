"""Transparent pixels are put over white, however the format encodes them."""

import struct

import pytest
from PIL import Image

from deployments.pixels.decode import decode
from tests.pixels.pictures import (
    AS_IS,
    BLACK,
    BLUE,
    RED,
    WHITE,
    close_to,
    colour,
    pixels,
    png,
    saved,
)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_transparency_is_put_over_white(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    for alpha, expected in ((0, WHITE), (128, (255, 127, 127)), (255, RED)):
        data = saved(Image.new("RGBA", (8, 8), (*RED, alpha)), kind, **options)
        assert colour(data) == close_to(expected)


def test_grey_with_alpha_is_put_over_white() -> None:
    for alpha, expected in ((0, 255), (128, 127), (255, 0)):
        for kind in ("PNG", "TIFF"):
            data = saved(Image.new("LA", (8, 8), (0, alpha)), kind)
            assert colour(data) == close_to((expected,) * 3, 1)


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*BLUE, *RED])
    assert colour(saved(image, "PNG")) == RED
    assert colour(saved(image, "PNG", transparency=0)) == RED
    assert colour(saved(image, "PNG", transparency=1)) == WHITE
    assert colour(saved(image, "GIF", transparency=1)) == WHITE
    assert colour(saved(image, "PNG", transparency=b"\xff\x80")) == close_to((255, 127, 127))


def test_a_palette_with_alpha_in_a_tiff_is_put_over_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*BLUE, *RED])
    image = image.convert("PA")
    assert colour(saved(image, "TIFF")) == RED
    image.putalpha(0)
    assert image.mode == "PA"
    assert colour(saved(image, "TIFF")) == WHITE


def test_the_part_that_a_gifs_first_frame_leaves_out_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*BLUE, *RED])
    data = bytearray(saved(image, "GIF"))
    data[6:10] = struct.pack("<HH", 8, 8)  # the canvas grows, the frame does not
    found = pixels(bytes(data))
    assert found[2, 2].tolist() == list(RED)
    assert found[2, 6].tolist() == found[6, 6].tolist() == list(WHITE)


@pytest.mark.parametrize(
    ("depth", "row", "key"),
    [
        (1, b"\x0f", 1),  # 0 0 0 0 1 1 1 1
        (2, b"\x00\xaa", 2),
        (4, b"\x00\x00\x99\x99", 9),
        (8, b"\x00" * 4 + b"\x63" * 4, 0x63),
        (16, b"\x00\x00" * 4 + b"\x12\x34" * 4, 0x1234),
    ],
)
def test_a_transparent_grey_of_any_depth_is_white(depth: int, row: bytes, key: int) -> None:
    data = png(8, 8, depth, 0, [row] * 8, [(b"tRNS", struct.pack(">H", key))])
    found = pixels(data)
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)
    without = pixels(png(8, 8, depth, 0, [row] * 8))
    assert depth == 1 or without[4, 6].max() < 255


@pytest.mark.parametrize(("depth", "pad"), [(8, b""), (16, b"\x07")])
def test_a_transparent_colour_of_either_depth_is_white(depth: int, pad: bytes) -> None:
    def sample(value: int) -> bytes:
        return bytes([value]) + pad

    key = sample(1) + sample(2) + sample(3)
    row = sample(0) * 12 + key * 4
    transparency = struct.pack(">HHH", *(v << 8 | pad[0] if pad else v for v in (1, 2, 3)))
    found = pixels(png(8, 8, depth, 2, [row] * 8, [(b"tRNS", transparency)]))
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparency_is_put_over_the_background_that_is_set(kind: str) -> None:
    logo = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    logo.paste((0, 0, 0, 0), (0, 0, 8, 4))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(logo, kind, **options)
    found = decode(data, AS_IS, max_pixels=100, background="#102030").pixels
    assert (found[:4] == (0x10, 0x20, 0x30)).all()
    assert (found[4:] == 255).all()
