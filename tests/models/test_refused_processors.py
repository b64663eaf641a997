"""Settings that do not make images of one size are refused, naming file, class and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.checkpoints.checkpoint import CheckpointError
from tests.models.processors import GONE, read


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", {"shortest_edge": 0}),
        ("size", {"shortest_edge": -64}),
        ("size", {"height": 64.0, "width": 64}),
        ("size", True),
        ("size", 0),
        ("crop_size", {"height": 48, "width": "56"}),
        ("resample", 6),
        ("resample", True),
        ("resample", "bicubic"),
        ("do_resize", "yes"),
        ("do_pad", 1),
        ("do_rescale", 1),
        ("rescale_factor", "1/255"),
        ("rescale_factor", None),
        ("image_mean", [0.5]),
        ("image_mean", [0.5, None, 0.5]),
        ("image_mean", "0.5"),
        ("image_std", [0.5, 0.0, 0.5]),
        ("image_std", [0.5, float("nan"), 0.5]),
    ],
)
def test_a_broken_setting_is_named(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **{key: value})
    expected = f"{tmp_path}/preprocessor_config.json: {key} is {json.dumps(value)}; it should "
    assert str(caught.value).startswith(expected)


def test_a_crop_of_next_to_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json: crop_pct is 0; it shoul"):
        read(tmp_path, image_processor_type="ConvNextImageProcessor", crop_pct=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"longest_edge": 224}},
        {"size": {"max_pixels": 4096, "min_pixels": 64}},
        {"size": {"height": 64}},
        {"size": "64"},
        {"crop_size": {"shortest_edge": 48}},
        {"do_pad": True, "pad_size": 20},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 64, "width": 64}},
        {"image_processor_type": "LevitImageProcessor", "size": {"longest_edge": 64}},
        {"image_processor_type": "LevitImageProcessor", "image_std": [1.0, 0.0, 1.0]},
        {"image_processor_type": "VitPoseImageProcessor"},  # needs boxes
        {"image_processor_type": "Sam2ImageProcessor"},  # needs torchvision
        {"image_processor_type": "NoSuchImageProcessor"},
        {"image_processor_type": "CLIPModel"},
        {"image_processor_type": "DINOv3ViTImageProcessorFast", "do_center_crop": True},
    ],
)
def test_settings_that_make_no_images_are_refused_naming_file_and_class(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **changes)
    name = str(changes.get("image_processor_type", "CLIPImageProcessor")).removesuffix("Fast")
    assert str(caught.value).startswith(f"{tmp_path}/preprocessor_config.json: ")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("Qwen2VL", r"'pixel_values': \(32, 1176\)"),
        ("VideoMAE", r"'pixel_values': \(1, 1, 3, 224, 224\)"),
        ("GotOcr2", r"'pixel_values': \(1, 3, 384, 384\), 'num_patches': \(1,\)"),
    ],
)
def test_a_processor_that_makes_something_other_than_one_image_is_refused(
    tmp_path: Path, kind: str, made: str
) -> None:
    changes = {"image_processor_type": f"{kind}ImageProcessor", "size": GONE, "crop_size": GONE}
    with pytest.raises(CheckpointError, match=rf"json: {kind}ImageProcessor makes .*{made}"):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"do_center_crop": False},
        {"do_resize": False, "do_center_crop": False},
        {"image_processor_type": "LevitImageProcessor", "do_center_crop": False},
        {"image_processor_type": "SiglipImageProcessor", "size": 64},
    ],
)
def test_images_of_different_sizes_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"Processor .* leaves images of different sizes"):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", False),
        ("patch_size", 1),
        ("patch_size", [16, 16]),
        ("max_num_patches", 0),
        ("max_num_patches", 65536),
        ("max_num_patches", "256"),
        ("image_std", [0.5, 0.0, 0.5]),
    ],
)
def test_a_broken_setting_of_naflex_is_named(tmp_path: Path, key: str, value: object) -> None:
    naflex = {"image_processor_type": "Siglip2ImageProcessorFast", "size": GONE, "crop_size": GONE}
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **naflex, **{key: value})
    expected = f"{tmp_path}/preprocessor_config.json: {key} is {json.dumps(value)}; it should "
    assert str(caught.value).startswith(expected)
