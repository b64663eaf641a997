"""Files in every layout that Pillow writes: what we decode is what Pillow decodes."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from deployments.card import PixelSpec
from deployments.errors import CorruptImage
from deployments.images.decode import decode
from deployments.images.jpeg import decode_jpeg

SPEC = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32))
DISPLAY_P3 = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(mode="RGB", size=(67, 45)):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size).convert(mode)


def saved(image, **options):
    buffer = BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def opened(data):
    return Image.open(BytesIO(data))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:2:2"}),
        ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"subsampling": "4:2:0", "progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"quality": 3}),
        ("RGB", {"restart_marker_rows": 1}),
        ("RGB", {"icc_profile": DISPLAY_P3}),
        ("L", {}),
        ("L", {"progressive": True}),
    ],
)
@pytest.mark.parametrize("size", [(67, 45), (1, 1), (8, 300)])
def test_the_pixels_are_pillows(mode, options, size):
    data = saved(noise(mode, size), **options)
    found = decode_jpeg(data, opened(data))
    assert (found == np.asarray(opened(data).convert("RGB"))).all()


def test_cmyk_is_left_to_pillow():
    data = saved(noise("CMYK"))
    assert decode_jpeg(data, opened(data)) is None


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_corrupt(cut):
    data = saved(noise(size=(300, 200)))
    with pytest.raises(CorruptImage):
        decode(data[: int(len(data) * cut)], SPEC, max_pixels=10**6)


def test_what_libjpeg_only_warns_of_is_decoded_as_pillow_does():
    data = saved(noise(size=(300, 200)))
    at = data.rindex(b"\xff\xd9")
    odd = data[:at] + b"\0\0\0\0" + data[at:]  # extraneous bytes before the end
    assert (decode(odd, SPEC, max_pixels=10**6) == decode(data, SPEC, max_pixels=10**6)).all()


def test_a_second_header_of_another_size_is_left_to_pillow():
    small, large = saved(noise(size=(16, 16))), saved(noise(size=(400, 400)))
    assert decode_jpeg(large, opened(small)) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_decoding_keeps_the_picture_and_its_orientation(orientation):
    image = noise(size=(1600, 1000))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif, quality=95)
    spec = PixelSpec(resize=("exact", 50, 80), resample=3, crop=None)
    exact = decode(data, spec, max_pixels=10**7)
    fast = decode(data, spec, max_pixels=10**7, fast=True)
    assert fast.shape == exact.shape
    apart = np.abs(fast.astype(int) - exact)
    assert 0 < apart.mean() < 3


def test_small_images_are_exact_in_reduced_decoding_too():
    data = saved(noise(size=(60, 40)))
    exact = decode(data, SPEC, max_pixels=10**6)
    assert (decode(data, SPEC, max_pixels=10**6, fast=True) == exact).all()
