"""Broken and huge files are refused in our own words, whatever the damage."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from deployments.errors import CorruptImage, ImageTooLarge, RaylensError, UnsupportedImage
from deployments.wire import Pixels
from tests.conftest import Jpeg
from tests.pixels.pictures import CLIP, EVERY_FORMAT, RED, pixels, png, quadrants, saved

# Broken


def test_an_empty_file_is_corrupt() -> None:
    with pytest.raises(CorruptImage):
        pixels(b"")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "AVIF"])
def test_a_file_cut_short_is_corrupt(kind: str, share: float, jpeg: Jpeg) -> None:
    data = saved(Image.open(io.BytesIO(jpeg(7, (64, 64)))), kind)
    pixels(data)
    with pytest.raises(CorruptImage):
        pixels(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"])
def test_a_known_signature_with_nothing_behind_it_is_corrupt(kind: str) -> None:
    data = saved(Image.new("RGB", (8, 8)), kind)
    for rest in (b"", b"\xee" * 50):
        with pytest.raises(CorruptImage):
            pixels(data[:12] + rest)


def test_a_damaged_png_is_corrupt() -> None:
    data = bytearray(saved(quadrants(size=64), "PNG"))
    data[45] ^= 0xFF
    with pytest.raises(CorruptImage):
        pixels(bytes(data))


def test_an_image_without_pixels_is_corrupt() -> None:
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
def test_no_damage_raises_anything_but_our_errors(
    data: bytes, damage: list[tuple[int, int]], length: int, tail: bytes
) -> None:
    damaged = bytearray(data)
    for place, byte in damage:
        damaged[place % len(damaged)] = byte
    found: Pixels | None = None
    message = ""
    try:
        found = pixels(bytes(damaged[:length]) + tail, CLIP)
    except (UnsupportedImage, CorruptImage, ImageTooLarge) as error:
        message = error.message
    assert found is None or found.shape == (224, 224, 3)
    # A sentence of our own: Pillow's messages contain the addresses of objects.
    assert found is not None or message.startswith(("The image ", "That is not an image"))


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from([data[:16] for data in EXAMPLES] + [b""]), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_errors(head: bytes, tail: bytes) -> None:
    with pytest.raises(RaylensError):
        pixels(head + tail, max_pixels=1000)


# Too large


def test_the_pixel_limit_is_exact() -> None:
    data = saved(Image.new("1", (50, 20)), "PNG")
    pixels(data, max_pixels=1000)
    with pytest.raises(ImageTooLarge) as caught:
        pixels(data, max_pixels=999)
    assert "50 x 20" in caught.value.message
    assert "999" in caught.value.message


def test_the_limit_is_checked_on_the_header_before_pixels_are_decoded() -> None:
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


def test_a_side_that_single_precision_cannot_count_is_too_large() -> None:
    with pytest.raises(ImageTooLarge):
        pixels(png(1, (1 << 24) + 1, 1, 0, []), max_pixels=50_000_000)
