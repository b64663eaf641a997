"""A checkpoint's own processor gives its own values, and never gets what is too large."""

import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import ExifTags, Image

from deployments.errors import CorruptImage, ImageTooLarge, UnsupportedImage
from deployments.pixels.processor import process
from deployments.wire import ProcessorSpec
from tests.pixels.pictures import AS_IS, pixels, quadrants, saved

MAX_PIXELS = 50_000_000


def specification(name: str, out: tuple[int, int], **settings: Any) -> ProcessorSpec:
    return ProcessorSpec(f"{name}ImageProcessorPil", json.dumps(settings), out)


LEVIT = specification("Levit", (48, 56), size=64, crop_size={"height": 48, "width": 56})
OWLV2 = specification("Owlv2", (96, 96), size=96)  # pads to a square
PAD = specification(
    "CLIP",
    (90, 80),
    do_resize=False,
    do_center_crop=False,
    do_pad=True,
    pad_size={"height": 90, "width": 80},
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("spec", [LEVIT, OWLV2, PAD])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (2, 80), (80, 2), (77, 64)])
def test_values_are_those_of_the_processor(spec: ProcessorSpec, size: tuple[int, int]) -> None:
    own = getattr(transformers, spec.name)(**json.loads(spec.config))
    expected = own(noise(*size), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    found = process(noise(*size), spec, max_pixels=MAX_PIXELS)
    assert found.shape == (*spec.height_width, 3)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert (found == expected).all()


def test_unscaled_values_are_floats_as_well() -> None:
    spec = specification("Levit", (8, 8), size=8, crop_size=8, do_rescale=False, do_normalize=False)
    found = process(noise(20, 30), spec, max_pixels=MAX_PIXELS)
    assert found.dtype == np.float32
    assert found.max() > 100


@pytest.mark.parametrize("size", [(81, 90), (80, 91)])
def test_an_image_that_the_processor_does_not_take_is_unsupported(size: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        process(noise(*size), PAD, max_pixels=MAX_PIXELS)
    assert "{} x {} pixels".format(*size) in caught.value.message


def test_an_image_that_comes_out_in_another_size_is_unsupported() -> None:
    spec = specification("CLIP", (48, 48), size={"shortest_edge": 48}, do_center_crop=False)
    assert process(noise(48, 48), spec, max_pixels=MAX_PIXELS).shape == (48, 48, 3)
    with pytest.raises(UnsupportedImage):
        process(noise(48, 60), spec, max_pixels=MAX_PIXELS)


# Strips


@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1), (2_000, 1)])
def test_a_strip_that_would_be_blown_up_is_too_large(size: tuple[int, int]) -> None:
    spec = specification("Levit", (224, 224))
    image = Image.new("RGB", size)
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge) as caught:
            process(image, spec, max_pixels=MAX_PIXELS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert "{} x {} pixels".format(*size) in caught.value.message


def test_a_strip_whose_square_would_be_huge_is_too_large() -> None:
    assert process(Image.new("RGB", (9_999, 50)), LEVIT, max_pixels=MAX_PIXELS).shape == (48, 56, 3)
    with pytest.raises(ImageTooLarge):
        process(Image.new("RGB", (10_001, 50)), LEVIT, max_pixels=MAX_PIXELS)


def test_small_limits_leave_ordinary_images_alone() -> None:
    spec = specification("Levit", (384, 384), size=384, crop_size=384)
    assert process(noise(80, 2), spec, max_pixels=1_000).shape == (384, 384, 3)


@pytest.mark.parametrize("size", [(8, 320), (320, 8), (2400, 60), (9428, 5303)])
def test_panoramas_and_large_photos_are_accepted(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    spec = specification("Levit", (384, 384), size=384, crop_size=384)
    assert np.ptp(process(image, spec, max_pixels=MAX_PIXELS), axis=(0, 1)).max() == 0


# In `decode`, in place of a specification

AS_IT_IS = ProcessorSpec(  # does what the specification AS_IS says
    "ViTImageProcessorPil",
    '{"size": 8, "resample": 0, "do_rescale": false, "do_normalize": false}',
    (8, 8),
)


def test_the_models_own_processor_sees_what_a_person_sees() -> None:
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


def test_the_models_own_processor_never_gets_broken_or_huge_files() -> None:
    data = saved(quadrants(size=64), "PNG")
    with pytest.raises(CorruptImage):
        pixels(data[:100], AS_IT_IS)
    with pytest.raises(ImageTooLarge):
        pixels(data, AS_IT_IS, max_pixels=64 * 64 - 1)


# Threads


def test_a_processor_is_built_once_and_threads_get_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[dict[str, Any]] = []
    from_dict = transformers.LevitImageProcessorPil.from_dict

    def counted(settings: dict[str, Any]) -> transformers.LevitImageProcessorPil:
        built.append(settings)
        time.sleep(0.05)  # as long as an import may take
        processor: transformers.LevitImageProcessorPil = from_dict(settings)
        return processor

    monkeypatch.setattr(transformers.LevitImageProcessorPil, "from_dict", counted)
    spec = specification("Levit", (40, 40), size=40, crop_size=40)
    images = [noise(60 + seed, 50, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda i: process(i, spec, max_pixels=MAX_PIXELS), images))
    assert len(built) == 1
    for image, found in zip(images, together, strict=True):
        assert (found == process(image, spec, max_pixels=MAX_PIXELS)).all()
