"""preprocessor_config.json is read as transformers reads it, or refused by key."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from deployments.card import PixelSpec
from deployments.models.checkpoint import CheckpointError
from deployments.models.spec import Preprocessing, read_preprocessing
from tests.models.conftest import Prepare

CLIP: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 48, "width": 56},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
GONE = object()


def write(folder: Path, **changes: object) -> Path:
    keys = {key: value for key, value in {**CLIP, **changes}.items() if value is not GONE}
    (folder / "preprocessor_config.json").write_text(json.dumps(keys))
    return folder


def read(folder: Path, **changes: object) -> Preprocessing:
    return read_preprocessing(write(folder, **changes))


def test_the_bundled_model_resizes_crops_and_normalises(bundled_folder: Path) -> None:
    assert read_preprocessing(bundled_folder) == Preprocessing(
        pixels=PixelSpec(resize=("shortest_edge", 256), resample=3, crop=(224, 224)),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        rescale_factor=1 / 255,
    )


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CLIP", {}),
        ("CLIP", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("CLIP", {"size": {"height": 48, "width": 40}, "do_center_crop": False, "resample": 1}),
        ("CLIP", {"size": 48, "default_to_square": True, "do_center_crop": False}),
        ("CLIP", {"do_rescale": False}),
        ("CLIP", {"do_normalize": False, "image_mean": GONE, "image_std": GONE}),
        ("CLIP", {"rescale_factor": 1 / 127.5, "do_pad": False}),
        ("ChineseCLIP", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("Bit", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("DeiT", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("ViT", {"size": 48, "resample": GONE, "crop_size": GONE}),
        ("Blip", {"size": 48, "resample": GONE, "crop_size": GONE, "do_center_crop": None}),
        ("Siglip", {"size": {"height": 48, "width": 48}, "resample": GONE, "crop_size": GONE}),
    ],
)
def test_pixels_come_out_as_from_the_hugging_face_processor(
    tmp_path: Path, prepare: Prepare, kind: str, changes: dict[str, Any]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (83, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    write(tmp_path, image_processor_type=f"{kind}ImageProcessor", **changes)
    processor = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(tmp_path)
    expected = processor(Image.fromarray(noise), return_tensors="np")["pixel_values"][0]

    spec = read_preprocessing(tmp_path)
    pixels = prepare(tmp_path / "noise.png", spec.pixels)
    assert pixels.shape[:2] == spec.pixels.size
    found = (pixels * spec.rescale_factor - spec.mean) / spec.std
    np.testing.assert_allclose(found.transpose(2, 0, 1), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("suffix", ["ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"])
def test_a_processor_class_is_known_by_all_its_names(tmp_path: Path, suffix: str) -> None:
    plain = read(tmp_path)
    changes = {"image_processor_type": GONE, "feature_extractor_type": f"CLIP{suffix}"}
    assert read(tmp_path, **changes) == plain
    assert read(tmp_path, image_processor_type=f"CLIP{suffix}") == plain


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", {"longest_edge": 224}),
        ("size", {"shortest_edge": 64, "longest_edge": 128}),
        ("size", {"max_pixels": 4096, "min_pixels": 64}),
        ("size", {"height": 64}),
        ("size", 0),
        ("size", "64"),
        ("size", True),
        ("size", GONE),
        ("crop_size", {"shortest_edge": 48}),
        ("crop_size", GONE),
        ("crop_size", 65),
        ("resample", 6),
        ("resample", "bicubic"),
        ("do_resize", "yes"),
        ("do_pad", True),
        ("do_rescale", 1),
        ("rescale_factor", "1/255"),
        ("image_mean", [0.5]),
        ("image_mean", GONE),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_processor_type", GONE),
        ("image_processor_type", "ConvNextImageProcessor"),
        ("image_processor_type", "Siglip2ImageProcessor"),
        ("crop_pct", 0.9),
        ("do_flip_channel_order", True),
        ("max_num_patches", 256),
    ],
)
def test_what_cannot_be_done_exactly_is_refused_by_file_and_key(
    tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **{key: value})
    named = "feature_extractor_type" if (key, value) == ("image_processor_type", GONE) else key
    assert str(caught.value).startswith(f"{tmp_path}/preprocessor_config.json: {named} ")


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"size .* leaves images of different sizes"):
        read(tmp_path, do_center_crop=False)


def test_null_means_that_the_key_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path, do_resize=None, crop_pct=None, do_center_crop=None) == read(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: .*JSON"):
        read_preprocessing(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: the file is missing"):
        read_preprocessing(tmp_path)
