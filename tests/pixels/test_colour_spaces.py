"""Colour spaces that files give by numbers or code points instead of an ICC profile."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from deployments.pixels import icc
from tests.pixels.pictures import AS_STORED, chunk, pixels, saved

COLOURS = np.array([[[200, 100, 50], [60, 120, 180], [128, 128, 128], [250, 240, 30]]], np.uint8)
# Linear light of Display P3 to that of sRGB, as CSS Color 4 gives it for white at D65.
P3_TO_SRGB = np.array(
    [
        [1.2249401, -0.2249404, 0.0],
        [-0.0420569, 1.0420571, 0.0],
        [-0.0196376, -0.0786361, 1.0982735],
    ]
)
PNG = saved(Image.fromarray(COLOURS), "PNG")
P3, LINEAR, SRGB = (bytes([p, t, 0, 1]) for p, t in ((12, 13), (1, 8), (1, 13)))
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def to_light(samples: NDArray[np.uint8]) -> NDArray[np.float64]:
    """IEC 61966-2-1."""
    x = samples / 255
    return np.asarray(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4))


def to_samples(light: NDArray[np.float64]) -> NDArray[np.float64]:
    light = light.clip(0, 1)
    return np.asarray(
        255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    )


FROM_P3 = to_samples(to_light(COLOURS) @ P3_TO_SRGB.T)
FROM_LINEAR = to_samples(COLOURS / 255)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


def profile_chunk(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


LINEAR_PROFILE = icc.from_code_points(1, 8) or b""


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], COLOURS),
        ([gamma(100_000)], FROM_LINEAR),
        ([gamma(45455)], COLOURS),
        ([gamma(45455), chunk(b"cHRM", struct.pack(">8I", *SRGB_PRIMARIES))], COLOURS),
        ([chunk(b"cHRM", struct.pack(">8I", *([10_000] * 8)))], COLOURS),
        ([gamma(100_000), chunk(b"sRGB", b"\0")], COLOURS),
        ([gamma(100_000), chunk(b"cICP", SRGB)], COLOURS),
        ([gamma(100_000), chunk(b"cICP", P3)], FROM_P3),
        ([chunk(b"cICP", LINEAR)], FROM_LINEAR),
        ([profile_chunk(LINEAR_PROFILE)], FROM_LINEAR),
        ([profile_chunk(LINEAR_PROFILE), chunk(b"sRGB", b"\0")], FROM_LINEAR),
        ([profile_chunk(LINEAR_PROFILE), chunk(b"cICP", SRGB)], COLOURS),
        # What says nothing, or nothing that can be.
        ([gamma(0)], COLOURS),
        ([chunk(b"gAMA", b"\0\1")], COLOURS),
        ([chunk(b"gAMA", struct.pack(">I", 100_000), checksum=1)], COLOURS),
        ([gamma(100_000), chunk(b"cHRM", bytes(32))], COLOURS),
        ([gamma(1), chunk(b"cHRM", b"\xff" * 32)], None),
        ([chunk(b"cICP", bytes([12, 13, 0, 0]))], COLOURS),
        ([chunk(b"cICP", bytes([99, 13, 0, 1]))], COLOURS),
    ],
)
def test_what_a_png_says_of_its_colours_counts_in_the_standards_order(
    chunks: list[bytes], expected: NDArray[np.float64] | None
) -> None:
    found = pixels(with_chunks(PNG, *chunks), AS_STORED)
    assert expected is None or np.abs(found - expected).max() <= 2


def test_a_gamma_counts_for_grey_too() -> None:
    grey = saved(Image.fromarray(COLOURS[..., 0]), "PNG")
    expected = to_samples(COLOURS[..., :1] / 255).repeat(3, axis=-1)
    assert np.abs(pixels(with_chunks(grey, gamma(100_000)), AS_STORED) - expected).max() <= 2
    plain = np.abs(pixels(with_chunks(grey, gamma(1)), AS_STORED) - COLOURS[..., :1] * 1.0)
    assert plain.max() == 0  # no profile can hold that


@pytest.mark.parametrize(
    ("code_points", "expected"),
    [((1, 13), COLOURS), ((1, 1), COLOURS), ((2, 2), COLOURS), ((12, 13), FROM_P3)],
)
def test_the_code_points_of_an_avif_count(
    code_points: tuple[int, int], expected: NDArray[np.float64]
) -> None:
    image = Image.fromarray(COLOURS.repeat(16, axis=0).repeat(16, axis=1))
    data = saved(image, "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    data = data[:place] + struct.pack(">HH", *code_points) + data[place + 4 :]
    assert np.abs(pixels(data, AS_STORED)[8::16, 8::16] - expected).max() <= 4


@pytest.mark.parametrize("kind", ["key", "alpha of 16 bits"])
def test_a_grey_profile_counts_beside_transparency(kind: str) -> None:
    grey = COLOURS[..., 0]
    if kind == "key":
        data = with_chunks(
            saved(Image.fromarray(grey), "PNG"), chunk(b"tRNS", struct.pack(">H", 128))
        )
        opaque = grey != 128
    else:
        rows = b"\0" + b"".join(struct.pack(">HH", int(g) * 257, 65535) for g in grey[0])
        head = struct.pack(">IIBBBBB", 4, 1, 16, 4, 0, 0, 0)
        parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
        data = PNG[:8] + b"".join(parts)
        opaque = np.ones_like(grey, bool)
    profile = icc.from_gamma(1.0, icc.SRGB, grey=True)
    assert profile is not None
    expected = np.where(opaque, to_samples(grey / 255), 255)[..., None]
    assert (
        np.abs(pixels(with_chunks(data, profile_chunk(profile)), AS_STORED) - expected).max() <= 2
    )


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize("place", ["twice", "behind the head of the frame", "in pieces"])
def test_a_jpegs_profile_counts_wherever_it_stands(place: str) -> None:
    plain = saved(Image.fromarray(COLOURS.repeat(8, axis=1)), "JPEG", quality=100, subsampling=0)
    halves = LINEAR_PROFILE[:200], LINEAR_PROFILE[200:]
    first, second = (
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 2]) + half)
        for n, half in enumerate(halves, 1)
    )
    whole = jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + LINEAR_PROFILE)
    at = plain.index(b"\xff\xc4") if place.startswith("behind") else 2
    added = {"twice": whole + whole, "in pieces": second + first}.get(place, whole)
    expected = saved(Image.open(io.BytesIO(plain)), "PNG")
    expected = with_chunks(expected, profile_chunk(LINEAR_PROFILE))
    assert np.abs(pixels(plain[:at] + added + plain[at:]) * 1.0 - pixels(expected)).max() <= 1


def test_profiles_made_of_code_points_are_what_little_cms_makes_of_srgb() -> None:
    made = icc.from_code_points(1, 13)
    assert made is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(made))
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, "RGB", "RGB")
    converted = ImageCms.applyTransform(Image.fromarray(COLOURS), transform)
    assert np.abs(np.asarray(converted) * 1.0 - COLOURS).max() <= 1
