"""What a file is, whatever becomes of its pixels: size, format, bits of a channel."""

import io
import struct
from typing import Any

import pytest
from PIL import ExifTags, Image

from deployments.pixels.decode import decode
from deployments.wire import ImageFacts, PixelSpec
from tests.pixels.pictures import AS_IS, CLIP, EVERY_FORMAT, RED, png, saved

WIDTH, HEIGHT = SIZE = (30, 20)


def facts(data: bytes, spec: PixelSpec = AS_IS, **options: Any) -> ImageFacts:
    return decode(data, spec, max_pixels=10**7, allow_tiff=True, **options).facts


def turned(kind: str, **options: Any) -> bytes:
    """To be turned by a quarter."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return saved(Image.new("RGB", SIZE, RED), kind, exif=exif, **options)


def deep_avif(bits: int) -> bytes:
    """An AVIF whose header says more bits a channel than Pillow can write."""
    data = bytearray(saved(Image.new("RGB", SIZE, RED), "AVIF"))
    data[data.index(b"av1C") + 6] |= {10: 0x40, 12: 0x60}[bits]
    depths = data.index(b"pixi") + 9
    data[depths : depths + 3] = [bits] * 3
    return bytes(data)


def bmp_of_16_bits() -> bytes:
    data = bytearray(saved(Image.new("RGB", SIZE), "BMP"))
    struct.pack_into("<H", data, 28, 16)
    return bytes(data)


@pytest.mark.parametrize("kind", EVERY_FORMAT)
@pytest.mark.parametrize("spec", [AS_IS, CLIP])
def test_facts_are_of_the_file_and_not_of_what_reaches_the_model(
    kind: str, spec: PixelSpec
) -> None:
    found = facts(saved(Image.new("RGB", SIZE), kind), spec)
    assert found == (WIDTH, HEIGHT, "JPEG" if kind == "MPO" else kind, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_a_size_is_that_before_exif_turns_the_image(kind: str) -> None:
    with Image.open(io.BytesIO(turned(kind))) as image:
        assert image.getexif()[ExifTags.Base.Orientation] == 6
    assert facts(turned(kind))[:2] == SIZE


@pytest.mark.parametrize("spec", [CLIP, PixelSpec(("shortest_edge", 32), 3, (32, 32), exact=False)])
@pytest.mark.parametrize("fast", [True, False])
def test_a_jpeg_that_is_decoded_smaller_or_without_pillow_has_its_own_size(
    spec: PixelSpec, fast: bool
) -> None:
    photo = saved(Image.new("RGB", (3001, 2000), RED), "JPEG")
    assert facts(photo, spec, fast=fast) == (3001, 2000, "JPEG", 8)
    assert facts(photo.removesuffix(b"\xff\xd9"), spec, fast=fast) == (3001, 2000, "JPEG", 8)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (saved(Image.new("1", SIZE), "PNG"), 1),
        (png(1, 1, 2, 0, [b"\0"]), 2),
        (png(1, 1, 4, 0, [b"\0"]), 4),
        (saved(Image.new("I;16", SIZE), "PNG"), 16),
        (png(1, 1, 16, 2, [b"\0" * 6]), 16),
        (png(1, 1, 16, 4, [b"\0" * 4]), 16),
        (png(1, 1, 16, 6, [b"\0" * 8]), 16),
        (saved(Image.new("LA", SIZE), "PNG"), 8),
        (saved(Image.new("P", SIZE), "PNG", bits=1), 8),
        (saved(Image.new("CMYK", SIZE), "JPEG"), 8),
        (saved(Image.new("L", SIZE), "JPEG"), 8),
        (saved(Image.new("1", SIZE), "GIF"), 8),
        (saved(Image.new("1", SIZE), "BMP"), 1),
        (saved(Image.new("P", SIZE), "BMP"), 8),
        (bmp_of_16_bits(), 5),
        (saved(Image.new("1", SIZE), "TIFF"), 1),
        (saved(Image.new("I;16", SIZE), "TIFF"), 16),
        (saved(Image.new("RGBA", SIZE), "TIFF", compression="tiff_lzw"), 8),
        (deep_avif(10), 10),
        (deep_avif(12), 12),
    ],
)
def test_bits_are_those_of_a_channel(data: bytes, bits: int) -> None:
    assert facts(data).bit_depth == bits


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_has_the_size_of_its_canvas(kind: str) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in (RED, (0, 0, 255))]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert facts(data) == (WIDTH, HEIGHT, kind, 8)
