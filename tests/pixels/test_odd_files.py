"""Files that viewers show although a strict decoder would not, and kinds that are not read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deployments.errors import CorruptImage, UnsupportedImage
from tests.conftest import Jpeg
from tests.pixels.pictures import chunk, pixels, saved

MEGABYTE = b"\0" * (1 << 20)


def saved_png(image: Image.Image) -> bytes:
    return saved(image, "PNG")


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its IHDR."""
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(100 * MEGABYTE)),
        chunk(b"iTXt", b"xml\0\1\0\0\0" + zlib.compress(2 * MEGABYTE)),
        chunk(b"tEXt", b"comment\0wrong", checksum=7),
        chunk(b"tEXt", b"x" * 2 * len(MEGABYTE)),
        chunk(b"iCCP", b"huge\0\0" + zlib.compress(100 * MEGABYTE)),
        chunk(b"iCCP", b"broken\0\0nonsense"),
        chunk(b"iCCP", b"cut\0\0" + zlib.compress(MEGABYTE)[:-9]),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", checksum=7),
        chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", b"short"),
        chunk(b"pHYs", b""),
        chunk(b"raND", b"any"),
    ],
)
def test_what_the_pixels_of_a_png_do_not_need_is_passed_over(added: bytes, jpeg: Jpeg) -> None:
    plain = saved_png(Image.open(io.BytesIO(jpeg(3, (64, 48)))))
    assert (pixels(with_chunks(plain, added)) == pixels(plain)).all()


def test_transparency_and_orientation_of_a_png_stay() -> None:
    image = Image.new("P", (8, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.info["transparency"] = 0
    data = with_chunks(saved_png(image), chunk(b"tEXt", b"a\0b", checksum=1))
    assert (pixels(data) == 255).all()
    exif = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    upright = Image.fromarray(np.arange(0, 240, 3).astype(np.uint8).reshape(8, 10))
    turned = with_chunks(
        saved_png(upright), chunk(b"eXIf", exif), chunk(b"tEXt", b"a\0b", checksum=1)
    )
    expected = saved_png(upright.transpose(Image.Transpose.ROTATE_270))
    assert (pixels(turned) == pixels(expected)).all()


def test_a_png_whose_pixels_are_damaged_is_corrupt(jpeg: Jpeg) -> None:
    plain = saved_png(Image.open(io.BytesIO(jpeg(3, (64, 48)))))
    place = plain.index(b"IDAT")
    with pytest.raises(CorruptImage):
        pixels(plain[: place + 20] + b"\xff" + plain[place + 21 :])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(
    mode: str, progressive: bool, jpeg: Jpeg
) -> None:
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(jpeg(5, (100, 80)))).convert(mode)
    image.save(buffer, "JPEG", progressive=progressive)
    whole = buffer.getvalue()
    assert (pixels(whole[:-2]) == pixels(whole)).all()
    assert (pixels(whole[:-1]) == pixels(whole)).all()
    for cut in (12, 100, len(whole) // 2):
        with pytest.raises(CorruptImage):
            pixels(whole[:-cut])


def test_a_jpeg_of_12_bits_is_of_a_kind_that_is_not_read(jpeg: Jpeg) -> None:
    data = bytearray(jpeg(1))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(UnsupportedImage, match="of a kind that this service does not read"):
        pixels(bytes(data))


def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque(jpeg: Jpeg) -> None:
    opaque = Image.open(io.BytesIO(jpeg(2, (40, 30))))
    unset = opaque.convert("RGBA")
    unset.putalpha(0)
    assert (pixels(bmp_with_alpha(unset)) == pixels(saved_png(opaque))).all()
    half = opaque.convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    assert (pixels(bmp_with_alpha(half)) != pixels(saved_png(opaque))).any()


def bmp_with_alpha(image: Image.Image) -> bytes:
    """A BMP of 32 bits with a mask for alpha, BITMAPV4HEADER."""
    width, height = image.size
    rows = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), 0, 0, 0, 0)
    header = (header + masks).ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 122 + len(rows), 0, 0, 122) + header + rows


@pytest.mark.parametrize(("depth", "compression"), [(3, 0), (8, 4), (24, 5)])
def test_a_bmp_of_an_unusual_depth_or_compression_is_of_a_kind_that_is_not_read(
    depth: int, compression: int
) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, depth, compression, 64, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 118, 0, 0, 54) + header + bytes(64)
    with pytest.raises(UnsupportedImage, match="of a kind"):
        pixels(data)
