"""Embedded ICC profiles are applied, unless they change nothing or are broken."""

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.conftest import Jpeg
from tests.pixels.pictures import BLUE, CLIP, RED, close_to, colour, pixels, saved
from tests.pixels.profiles import (
    RED_AND_BLUE_SWAPPED,
    XYZ_BLUE,
    XYZ_GREEN,
    XYZ_RED,
    gamma,
    icc_profile,
    rgb_profile,
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_embedded_profile_is_applied(kind: str) -> None:
    data = saved(Image.new("RGB", (8, 8), RED), kind, icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to(BLUE, 8)


def test_a_profile_is_applied_before_transparency_is_blended() -> None:
    image = Image.new("RGBA", (8, 8), (*RED, 128))
    data = saved(image, "PNG", icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to((127, 127, 255), 8)


def test_a_profile_is_applied_to_palette_and_grey_images() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette(RED)
    data = saved(image, "PNG", icc_profile=RED_AND_BLUE_SWAPPED)
    assert colour(data) == close_to(BLUE, 8)
    linear = icc_profile(b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
    data = saved(Image.new("L", (8, 8), 128), "PNG", icc_profile=linear)
    assert colour(data) == close_to((188, 188, 188), 2)  # 0.5 in linear light


def test_a_press_profile_decides_what_cmyk_looks_like() -> None:
    # A device whose coloured inks are all the same mid grey.
    white, grey, black = (bytes([lightness, 128, 128]) for lightness in (255, 128, 0))
    grid = white + black + (grey + black) * 7  # of C, M, Y, K at 0 and 1, the last fastest
    identity = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, *[0] * 3, 65536,
        *[0] * 3, 65536) + identity * 4 + grid + identity * 3  # fmt: skip
    press = icc_profile(b"CMYK", b"Lab ", {b"A2B0": lut})
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=press)
    assert colour(data) == close_to((119, 119, 119), 3)


def test_a_profile_that_is_srgb_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = pixels(saved(Image.fromarray(noise), "PNG", icc_profile=srgb))
    assert (found == noise).all()


def test_a_profile_that_is_srgb_but_for_rounding_changes_nothing() -> None:
    encoded = np.arange(1024) / 1023
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(linear * 65535).astype(int))
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    profile = rgb_profile(XYZ_RED, XYZ_GREEN, XYZ_BLUE, curve)
    assert (pixels(saved(Image.fromarray(noise), "PNG", icc_profile=profile)) == noise).all()
    # Another gamma does change them: it moves dark colours by more.
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
        RED_AND_BLUE_SWAPPED + b"\0" * 100_000,  # not cached; applied although its size is wrong
    ],
)
def test_a_broken_or_foreign_profile_is_ignored(profile: bytes) -> None:
    found = colour(saved(Image.new("RGB", (8, 8), RED), "PNG", icc_profile=profile))
    assert found in (RED, close_to(BLUE, 8))
    assert found == RED or len(profile) > 100_000


def test_many_threads_decode_alike(jpeg: Jpeg) -> None:
    profile = RED_AND_BLUE_SWAPPED
    files = [
        saved(Image.open(io.BytesIO(jpeg(seed))), "JPEG", icc_profile=profile) for seed in range(8)
    ]
    alone = [pixels(data, CLIP) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: pixels(data, CLIP), files * 4))
    for index, found in enumerate(together):
        assert (found == alone[index % 8]).all()
