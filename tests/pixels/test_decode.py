import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from deployments.errors import CorruptImage, ImageTooLarge, RaylensError, UnsupportedImage
from deployments.pixels.decode import decode
from deployments.wire import PixelSpec, ProcessorSpec

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3
AS_IS = PixelSpec(("exact", 8, 8), 0, None)
CLIP = PixelSpec(("shortest_edge", 224), 3, (224, 224))
EVERY_FORMAT = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"]


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data, spec=AS_IS, max_pixels=1_000_000, allow_tiff=True):
    return decode(data, spec, max_pixels=max_pixels, allow_tiff=allow_tiff)


def colour(data):
    """The one colour of an image, to within what lossy formats do to it."""
    found = pixels(data).reshape(-1, 3)
    assert np.ptp(found, axis=0).max() <= 2
    return tuple(found[0].tolist())


def close_to(expected, tolerance=2):
    return pytest.approx(expected, abs=tolerance)


def quadrants(mode="RGB", size=8):
    """Upright: red and green above blue and white."""
    image = Image.new("RGB", (size, size), RED)
    half = size // 2
    image.paste(GREEN, (half, 0, size, half))
    image.paste(BLUE, (0, half, half, size))
    image.paste(WHITE, (half, half, size, size))
    return image.convert(mode)


def png(width, height, depth, colour_type, rows, chunks=()):
    """A PNG as Pillow cannot write it: any depth, and samples as they are."""

    def chunk(kind, body):
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    middle = b"".join(chunk(kind, body) for kind, body in chunks)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


# Formats


@pytest.mark.parametrize("kind", EVERY_FORMAT)
def test_every_allowed_format_becomes_rgb_pixels(kind):
    found = pixels(saved(Image.new("RGB", (20, 10), (200, 100, 50)), kind))
    assert found.dtype == np.uint8
    assert found.shape == (8, 8, 3)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found[4, 4].tolist() == close_to((200, 100, 50), 3)


def test_a_phones_mpo_is_read_as_its_first_picture():
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert colour(data) == close_to(RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_the_first_frame_is_the_image(kind):
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    data = saved(first, kind, save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert colour(data) == close_to(RED, 3)


def test_tiff_is_read_only_if_allowed():
    data = saved(Image.new("RGB", (8, 8), RED), "TIFF")
    with pytest.raises(UnsupportedImage) as caught:
        pixels(data, allow_tiff=False)
    assert "TIFF" not in caught.value.message
    assert colour(data) == RED


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX", "JPEG2000", "EPS", "ICNS", "DDS"])
def test_formats_that_only_pillow_knows_are_unsupported(kind):
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
def test_bytes_of_no_known_format_are_unsupported(data):
    with pytest.raises(UnsupportedImage):
        pixels(data)


# Broken files


def test_nothing_at_all_is_corrupt():
    with pytest.raises(CorruptImage):
        pixels(b"")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "AVIF"])
def test_a_file_cut_short_is_corrupt(kind, share, jpeg):
    data = saved(Image.open(io.BytesIO(jpeg(7, (64, 64)))), kind)
    pixels(data)
    with pytest.raises(CorruptImage):
        pixels(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"])
def test_a_known_signature_with_nothing_behind_it_is_corrupt(kind):
    data = saved(Image.new("RGB", (8, 8)), kind)
    for rest in (b"", b"\xee" * 50):
        with pytest.raises(CorruptImage):
            pixels(data[:12] + rest)


def test_a_damaged_png_is_corrupt():
    data = bytearray(saved(quadrants(size=64), "PNG"))
    data[45] ^= 0xFF
    with pytest.raises(CorruptImage):
        pixels(bytes(data))


def test_an_image_without_pixels_is_corrupt():
    data = bytearray(saved(Image.new("RGB", (8, 8)), "BMP"))
    data[18:22] = b"\0\0\0\0"
    with pytest.raises(CorruptImage):
        pixels(bytes(data))


EXAMPLES = [saved(quadrants(size=24), kind) for kind in EVERY_FORMAT] + [
    saved(quadrants("RGBA"), "PNG", exif=Image.Exif()),
    saved(quadrants("CMYK"), "JPEG"),
    saved(quadrants("P"), "GIF", transparency=1),
    saved(quadrants("1"), "TIFF", compression="group4"),
    saved(
        quadrants(),
        "JPEG",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ),
]


@pytest.mark.filterwarnings("ignore")  # Pillow's own remarks about odd files
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(EXAMPLES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    st.integers(0, 3000),
    st.binary(max_size=8),
)
def test_no_damage_raises_anything_but_our_errors(data, damage, length, tail):
    damaged = bytearray(data)
    for place, byte in damage:
        damaged[place % len(damaged)] = byte
    try:
        found = pixels(bytes(damaged[:length]) + tail, CLIP)
    except (UnsupportedImage, CorruptImage, ImageTooLarge) as error:
        found, message = None, error.message
    assert found is None or found.shape == (224, 224, 3)
    # Our own sentences; Pillow's hold addresses of objects.
    assert found is not None or message.startswith(("The image ", "That is no image"))


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from([data[:16] for data in EXAMPLES] + [b""]), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_errors(head, tail):
    with pytest.raises(RaylensError):
        pixels(head + tail, max_pixels=1000)


# Too large


def test_the_pixel_limit_is_exact():
    data = saved(Image.new("1", (50, 20)), "PNG")
    pixels(data, max_pixels=1000)
    with pytest.raises(ImageTooLarge) as caught:
        pixels(data, max_pixels=999)
    assert "50 x 20" in caught.value.message
    assert "999" in caught.value.message


def test_the_limit_is_checked_on_the_header_before_pixels_are_decoded():
    # 100 and 400 megapixels that are not there: decoding would find the file corrupt. The first
    # is where Pillow's own limit warns (and warnings are errors here), the second where it raises.
    for side in (10_000, 20_000):
        with pytest.raises(ImageTooLarge):
            pixels(png(side, side, 8, 2, []), max_pixels=50_000_000)
    gif = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    webp = bytearray(
        saved(
            Image.new("RGBA", (8, 8)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("RGBA", (8, 8), RED)],
        )
    )
    webp[24:30] = b"\x00\x3f\x00\x00\x3f\x00"
    for data in (gif, webp):
        with pytest.raises(ImageTooLarge):
            pixels(bytes(data), max_pixels=50_000_000)


def test_a_side_that_single_precision_cannot_count_is_too_large():
    with pytest.raises(ImageTooLarge):
        pixels(png(1, (1 << 24) + 1, 1, 0, []), max_pixels=50_000_000)


# What a person sees: orientation

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
def test_every_exif_orientation_is_turned_upright(kind, orientation):
    upright = quadrants(size=64).resize((64, 32))
    stored = upright
    if STORED[orientation] is not None:
        stored = upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    found = pixels(saved(stored, kind, exif=exif), PixelSpec(("exact", 32, 64), 0, None))
    assert np.abs(found[8, [8, 56]].astype(int) - (RED, GREEN)).max() <= 6
    assert np.abs(found[24, [8, 56]].astype(int) - (BLUE, WHITE)).max() <= 6


def test_a_broken_or_unknown_orientation_is_no_orientation():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    plain = pixels(saved(quadrants(), "PNG"))
    assert (pixels(saved(quadrants(), "PNG", exif=exif)) == plain).all()
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0"):
        assert (pixels(saved(quadrants(), "PNG", exif=block)) == plain).all()


# What a person sees: transparency over white


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_transparency_is_put_over_white(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    for alpha, expected in ((0, WHITE), (128, (255, 127, 127)), (255, RED)):
        data = saved(Image.new("RGBA", (8, 8), (*RED, alpha)), kind, **options)
        assert colour(data) == close_to(expected)


def test_grey_with_alpha_is_put_over_white():
    for alpha, expected in ((0, 255), (128, 127), (255, 0)):
        for kind in ("PNG", "TIFF"):
            data = saved(Image.new("LA", (8, 8), (0, alpha)), kind)
            assert colour(data) == close_to((expected,) * 3, 1)


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*BLUE, *RED])
    assert colour(saved(image, "PNG")) == RED
    assert colour(saved(image, "PNG", transparency=0)) == RED
    assert colour(saved(image, "PNG", transparency=1)) == WHITE
    assert colour(saved(image, "GIF", transparency=1)) == WHITE
    assert colour(saved(image, "PNG", transparency=b"\xff\x80")) == close_to((255, 127, 127))


def test_a_palette_with_alpha_in_a_tiff_is_put_over_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*BLUE, *RED])
    image = image.convert("PA")
    assert colour(saved(image, "TIFF")) == RED
    image.putalpha(0)
    assert image.mode == "PA"
    assert colour(saved(image, "TIFF")) == WHITE


def test_the_part_that_a_gifs_first_frame_leaves_out_is_white():
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
def test_a_transparent_grey_of_any_depth_is_white(depth, row, key):
    data = png(8, 8, depth, 0, [row] * 8, [(b"tRNS", struct.pack(">H", key))])
    found = pixels(data)
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)
    without = pixels(png(8, 8, depth, 0, [row] * 8))
    assert depth == 1 or without[4, 6].max() < 255


@pytest.mark.parametrize(("depth", "pad"), [(8, b""), (16, b"\x07")])
def test_a_transparent_colour_of_either_depth_is_white(depth, pad):
    def sample(value):
        return bytes([value]) + pad

    key = sample(1) + sample(2) + sample(3)
    row = sample(0) * 12 + key * 4
    transparency = struct.pack(">HHH", *(v << 8 | pad[0] if pad else v for v in (1, 2, 3)))
    found = pixels(png(8, 8, depth, 2, [row] * 8, [(b"tRNS", transparency)]))
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)


# What a person sees: depth and colour spaces


def test_sixteen_bits_are_scaled_and_not_clipped():
    for value, expected in ((0, 0), (255, 0), (0x4000, 0x40), (0x8000, 0x80), (65535, 255)):
        grey = struct.pack(">H", value)
        assert colour(png(8, 8, 16, 0, [grey * 8] * 8)) == (expected,) * 3
        assert colour(png(8, 8, 16, 2, [grey * 24] * 8)) == (expected,) * 3
        opaque = grey + b"\xff\xff"
        assert colour(png(8, 8, 16, 4, [opaque * 8] * 8)) == (expected,) * 3


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bit_tiffs_of_either_byte_order_are_scaled(mode, compression):
    samples = np.full((8, 8), 0x8040, ">u2" if mode == "I;16B" else "<u2")
    image = Image.fromarray(samples)
    assert image.mode == mode
    assert colour(saved(image, "TIFF", compression=compression)) == (0x80,) * 3


def test_thirty_two_bit_samples_are_scaled_by_what_they_hold():
    for value, expected in ((0x8000, 0x80), (0x40000000, 0x80), (-5, 0)):
        image = Image.fromarray(np.full((8, 8), value, np.int32))
        assert image.mode == "I"
        assert colour(saved(image, "TIFF")) == (expected,) * 3


def test_floating_point_samples_are_unsupported():
    with pytest.raises(UnsupportedImage):
        pixels(saved(Image.new("F", (8, 8), 0.5), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_one_bit_grey_and_palette_images_keep_their_colours(mode, kind):
    black_and_white = Image.new("RGB", (8, 8), BLACK)
    black_and_white.paste(WHITE, (4, 0, 8, 8))
    found = pixels(saved(black_and_white.convert(mode), kind))
    assert found[4, 1].tolist() == list(BLACK)
    assert found[4, 6].tolist() == list(WHITE)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    for ink, expected in (
        ((0, 0, 0, 0), WHITE),
        ((0, 0, 0, 255), BLACK),
        ((0, 255, 255, 0), RED),
        ((255, 255, 0, 0), BLUE),
    ):
        assert colour(saved(Image.new("CMYK", (8, 8), ink), kind)) == close_to(expected)


def test_ycck_as_photoshop_writes_it_is_understood():
    # Stored samples are inverted; Adobe's transform 2 says that three of them are YCbCr.
    data = saved(Image.new("CMYK", (8, 8), (55, 127, 127, 0)), "JPEG")
    adobe = data.index(b"Adobe\0") + 11
    assert data[adobe] == 0
    assert colour(data[:adobe] + b"\x02" + data[adobe + 1 :]) == close_to((55, 55, 55), 3)


def test_lab_becomes_rgb():
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(quadrants(), srgb, lab, outputMode="LAB")
    found = pixels(saved(image, "TIFF"))
    assert np.abs(found.astype(int) - np.asarray(quadrants())).max() <= 25  # 8 bits are few


# What a person sees: ICC profiles


def icc_profile(space, connection, tags):
    """A minimal ICC version 2 profile (ICC.1:2001-04)."""
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0x\0",
        b"wtpt": b"XYZ \0\0\0\0" + white,
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(tag))
        body += tag + b"\0" * (-len(tag) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28s12s48s",
        128 + len(table) + len(body),
        b"lcms",
        0x02100000,
        b"prtr" if space == b"CMYK" else b"mntr",
        space,
        connection,
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0),
        b"acsp",
        b"",
        white,
        b"",
    )
    return header + table + body


def gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(red, green, blue, curve=None):
    """The given primaries, as XYZ under D50, and the curve of all three, or gamma 2.2."""
    primaries = {
        name: b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in primary))
        for name, primary in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve or gamma(2.2))
    return icc_profile(b"RGB ", b"XYZ ", {**primaries, **curves})


XYZ_RED, XYZ_GREEN, XYZ_BLUE = (
    (0.4361, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)
RED_AND_BLUE_SWAPPED = rgb_profile(XYZ_BLUE, XYZ_GREEN, XYZ_RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_embedded_profile_is_applied(kind):
    data = saved(Image.new("RGB", (8, 8), RED), kind, icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to(BLUE, 8)


def test_a_profile_is_applied_below_the_transparency():
    image = Image.new("RGBA", (8, 8), (*RED, 128))
    data = saved(image, "PNG", icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to((127, 127, 255), 8)


def test_a_profile_is_applied_to_palette_and_grey_images():
    image = Image.new("P", (8, 8), 0)
    image.putpalette(RED)
    data = saved(image, "PNG", icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to(BLUE, 8)
    linear = icc_profile(b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
    data = saved(Image.new("L", (8, 8), 128), "PNG", icc_profile=linear)
    assert colour(data) == close_to((188, 188, 188), 2)  # 0.5 in linear light


def test_a_press_profile_decides_what_cmyk_looks_like():
    # A device whose coloured inks are all the same mid grey.
    white, grey, black = (bytes([lightness, 128, 128]) for lightness in (255, 128, 0))
    grid = white + black + (grey + black) * 7  # of C, M, Y, K at 0 and 1, the last fastest
    identity = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, *[0] * 3, 65536,
        *[0] * 3, 65536) + identity * 4 + grid + identity * 3  # fmt: skip
    press = icc_profile(b"CMYK", b"Lab ", {b"A2B0": lut})
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=press)
    assert colour(data) == close_to((119, 119, 119), 3)


def test_a_profile_that_is_srgb_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = pixels(saved(Image.fromarray(noise), "PNG", icc_profile=srgb))
    assert (found == noise).all()


def test_a_profile_that_is_srgb_but_for_rounding_changes_nothing():
    encoded = np.arange(1024) / 1023
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(linear * 65535).astype(int))
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    profile = rgb_profile(XYZ_RED, XYZ_GREEN, XYZ_BLUE, curve)
    assert (pixels(saved(Image.fromarray(noise), "PNG", icc_profile=profile)) == noise).all()
    # Not so another gamma, which moves dark colours by more.
    other = rgb_profile(XYZ_RED, XYZ_GREEN, XYZ_BLUE, gamma(1.8))
    assert (pixels(saved(Image.fromarray(noise), "PNG", icc_profile=other)) != noise).any()


@pytest.mark.parametrize(
    "profile",
    [
        b"x",
        b"\0" * 200,
        RED_AND_BLUE_SWAPPED[:-300],
        RED_AND_BLUE_SWAPPED[:16] + b"CMYK" + RED_AND_BLUE_SWAPPED[20:],
        RED_AND_BLUE_SWAPPED[:16] + b"GRAY" + RED_AND_BLUE_SWAPPED[20:],
        RED_AND_BLUE_SWAPPED + b"\0" * 100_000,  # not cached: used, and wrong in its size
    ],
)
def test_a_broken_or_foreign_profile_is_ignored(profile):
    found = colour(saved(Image.new("RGB", (8, 8), RED), "PNG", icc_profile=profile))
    assert found in (RED, close_to(BLUE, 8))
    assert found == RED or len(profile) > 100_000


# The model's own processor

AS_IT_IS = ProcessorSpec(  # does what the specification AS_IS says
    "ViTImageProcessorPil",
    '{"size": 8, "resample": 0, "do_rescale": false, "do_normalize": false}',
    (8, 8),
)


def test_the_models_own_processor_sees_what_a_person_sees():
    half = quadrants("RGBA", 24)
    half.putalpha(Image.linear_gradient("L").resize((24, 24)))
    turned = quadrants(size=24).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for data in (
        saved(half, "PNG"),
        saved(turned, "JPEG", exif=exif),
        saved(quadrants("CMYK", 24), "JPEG"),
        saved(quadrants("P", 24), "GIF"),
    ):
        found = pixels(data, AS_IT_IS)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert (found == pixels(data, AS_IS)).all()


def test_the_models_own_processor_is_spared_broken_and_huge_files():
    data = saved(quadrants(size=64), "PNG")
    with pytest.raises(CorruptImage):
        pixels(data[:100], AS_IT_IS)
    with pytest.raises(ImageTooLarge):
        pixels(data, AS_IT_IS, max_pixels=64 * 64 - 1)


# Geometry


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 2), (224, 224), (500, 31)])
def test_any_size_becomes_the_size_of_the_specification(size):
    data = saved(Image.new("RGB", size, RED), "PNG")
    for spec in (CLIP, PixelSpec(("exact", 10, 20), 2, None), PixelSpec(None, 3, (5, 6))):
        assert pixels(data, spec).shape == (*spec.size, 3)


def test_what_a_crop_lacks_is_black_and_the_image_is_in_its_middle():
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
def test_geometry_equals_the_hugging_face_processor_with_pillow(spec):
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
        crop_size={"height": spec.size[0], "width": spec.size[1]},
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
def test_fast_decoding_keeps_the_picture_and_its_orientation(orientation):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(coarse).resize((1600, 1000)), "JPEG", exif=exif, quality=95)
    spec = PixelSpec(("exact", 50, 80), 3, None)
    exact = decode(data, spec, max_pixels=10**7)
    fast = decode(data, spec, max_pixels=10**7, fast=True)
    assert fast.shape == exact.shape
    assert 0 < np.abs(fast.astype(int) - exact).mean() < 3


@pytest.mark.parametrize(("size", "form"), [((60, 40), "JPEG"), ((600, 400), "PNG")])
def test_fast_decoding_of_small_images_and_other_formats_is_exact(size, form):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    data = saved(Image.fromarray(coarse).resize(size), form)
    spec = PixelSpec(("shortest_edge", 32), 3, (32, 32))
    exact = decode(data, spec, max_pixels=10**7)
    assert (decode(data, spec, max_pixels=10**7, fast=True) == exact).all()


@pytest.mark.parametrize("size", [(8000, 20), (20, 8000)])
@pytest.mark.parametrize("resample", [1, 2, 3, 4, 5])
def test_a_long_strip_looks_as_if_it_had_been_resized_whole(size, resample):
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
def test_a_strip_needs_little_memory(spec, size):
    data = saved(Image.new("L", size, 77), "PNG")
    Image.core.reset_stats()
    found = pixels(data, spec)
    blocks = Image.core.get_stats()["new_count"], Image.core.get_stats()["allocated_blocks"]
    assert found.min() == found.max() == 77
    # Pillow allocates blocks of 16 MB; a row of 224 for each of 400,000 would be over 20.
    assert blocks[1] <= 8, blocks


# Threads


def test_many_threads_decode_alike(jpeg):
    profile = RED_AND_BLUE_SWAPPED
    files = [
        saved(Image.open(io.BytesIO(jpeg(seed))), "JPEG", icc_profile=profile) for seed in range(8)
    ]
    alone = [pixels(data, CLIP) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: pixels(data, CLIP), files * 4))
    for index, found in enumerate(together):
        assert (found == alone[index % 8]).all()
