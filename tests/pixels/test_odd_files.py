"""Files that viewers show although a strict decoder would not, and kinds that are not read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deployments.errors import CorruptImage, UnsupportedImage
from tests.conftest import Jpeg
from tests.pixels.pictures import AS_STORED, chunk, pixels, saved

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


def png_of(colour_type: int, *chunks: bytes, behind: bytes = b"") -> bytes:
    """2 x 1 pixels of 8 bits, with chunks before and behind them."""
    row = {0: b"\x10\xf0", 2: b"\x10\x20\x30\xf0\xe0\xd0", 3: b"\0\1"}[colour_type]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, colour_type, 0, 0, 0))
    palette = chunk(b"PLTE", b"\x10\x20\x30\xf0\xe0\xd0") if colour_type == 3 else b""
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + head + palette + b"".join(chunks) + data + behind


@pytest.mark.parametrize(
    ("colour_type", "key"), [(0, b"\0"), (0, bytes(4)), (2, b"\0\x10"), (3, bytes(300))]
)
def test_a_key_of_the_wrong_length_is_passed_over(colour_type: int, key: bytes) -> None:
    plain = png_of(colour_type, behind=chunk(b"IEND", b""))
    odd = png_of(colour_type, chunk(b"tRNS", key), behind=chunk(b"IEND", b""))
    assert (pixels(odd) == pixels(plain)).all()


@pytest.mark.parametrize("kind", [b"tEXt", b"eXIf", b"fdAT"])
def test_a_png_cut_short_behind_its_pixels_is_whole(kind: bytes) -> None:
    plain = png_of(2, behind=chunk(b"IEND", b""))
    assert (pixels(png_of(2, behind=chunk(kind, b"a\0" + b"x" * 100)[:-50])) == pixels(plain)).all()


def jpeg_with(*segments: tuple[int, bytes]) -> tuple[bytes, bytes]:
    """A JPEG without any segments for applications, and one with `segments`."""
    buffer = io.BytesIO()
    picture = np.arange(64 * 48 * 3).reshape(48, 64, 3) % 251
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    plain = data[:2] + data[20:]
    added = [struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments]
    return plain, plain[:2] + b"".join(added) + plain[2:]


XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "segment",
    [
        (0xE0, b"JFIF\0"),
        (0xE1, XMP),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xED, b"Photoshop 3.0\x008BIM\4\4"),
        (0xEE, b"Adobe"),
    ],
)
def test_what_the_pixels_of_a_jpeg_do_not_need_is_passed_over(segment: tuple[int, bytes]) -> None:
    plain, odd = jpeg_with(segment)
    assert (pixels(odd) == pixels(plain)).all()


@pytest.mark.parametrize("padding", [bytes(4096), b"\r\n", b"\r\n" * 9])
@pytest.mark.parametrize("progressive", [False, True])
def test_padding_instead_of_a_jpegs_end_does_no_harm(
    padding: bytes, progressive: bool, jpeg: Jpeg
) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(5, (100, 80)))).save(buffer, "JPEG", progressive=progressive)
    whole = buffer.getvalue()
    assert (pixels(whole[:-2] + padding) == pixels(whole)).all()


@pytest.mark.parametrize(
    ("depth", "colours"),
    [(8, [0, 255]), (4, [0, 255]), (4, [*range(16)]), (8, [0] * 100 + [255] * 200), (8, [255, 9])],
)
def test_a_bmps_palette_may_have_any_length(depth: int, colours: list[int]) -> None:
    indices = np.arange(16, dtype=np.uint8).reshape(2, 8) % min(len(colours), 16)
    rows = np.ascontiguousarray(indices[::-1])
    packed = rows.tobytes() if depth == 8 else (rows[:, ::2] << 4 | rows[:, 1::2]).tobytes()
    palette = b"".join(bytes([c, c, c, 0]) for c in colours)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 2, 1, depth, 0, 0, 0, 0, len(colours), 0)
    offset = 54 + len(palette)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + header + palette + packed
    assert (pixels(data, AS_STORED)[..., 0] == np.array(colours)[indices]).all()


def test_where_no_frame_of_a_webp_has_drawn_is_the_background() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = bytearray(buffer.getvalue())
    assert data[12:16] == b"VP8X"
    data[20] &= ~0x10  # no alpha, as muxers write it
    data[24] = 31  # a canvas of twice the width
    found = pixels(bytes(data), AS_STORED)
    assert found.shape == (8, 32, 3)
    assert (found[:, :16] == (255, 0, 0)).all()
    assert (found[:, 16:] == 255).all()


def test_the_greys_of_a_gifs_frame_count_before_its_global_palette() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = saved(Image.fromarray(picture), "GIF")
    screen, palette = plain[:13], bytes(np.arange(256, dtype=np.uint8).repeat(3))
    assert plain[13 : 13 + 768] == palette
    image = plain.index(b"\x2c", 13 + 768)
    flags = bytes([plain[image + 9] | 0x87])  # a palette of its own with 256 entries
    own = plain[image : image + 9] + flags + palette + plain[image + 10 :]
    found = pixels(screen + bytes(768) + own, AS_STORED)
    assert (found[..., 0] == picture).all()


@pytest.mark.parametrize("last", [b"\n", b"\r", b"\0"])
def test_a_scan_without_end_marker_may_end_in_what_looks_like_padding(last: bytes) -> None:
    for seed in range(3000):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        whole = saved(Image.fromarray(noise), "JPEG")
        if whole[:-2].endswith(last) and not whole[:-2].endswith(b"\xff\0"):
            assert (pixels(whole[:-2]) == pixels(whole)).all()
            return
    pytest.fail("no such scan")
