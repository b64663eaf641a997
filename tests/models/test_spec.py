"""A processor's settings become a geometry and a multiply-add with the same result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.spec import Preprocessing, read_preprocessing
from deployments.pixels.geometry import fit
from deployments.pixels.patches import cut
from deployments.wire import PatchSpec, PixelSpec
from tests.models.processors import GONE, Array, images, read, theirs
from tests.models.published import PUBLISHED

DINOV3 = "facebook/dinov3-vits16-pretrain-lvd1689m"
NAFLEX = "google/siglip2-base-patch16-naflex"


def greys_apart(found: Preprocessing, image: Image.Image, expected: Array) -> float:
    """The largest difference between our pixels and the expected ones, in levels of uint8."""
    assert isinstance(found.pixels, PixelSpec)
    if found.flip_channels:
        expected = expected[:, :, ::-1]
    pixels = np.asarray(fit(image, found.pixels))
    assert pixels.shape == (*found.pixels.height_width, 3)
    return float(np.abs((expected - found.shift) / found.scale - pixels).max())


def test_the_bundled_model_resizes_crops_and_normalises(bundled_folder: Path) -> None:
    found = read_preprocessing(bundled_folder)
    assert found.pixels == PixelSpec(resize=("shortest_edge", 256), resample=3, crop=(224, 224))
    assert found.scale == pytest.approx((1 / 128,) * 3, rel=1e-15)
    assert found.shift == pytest.approx((-127 / 128,) * 3, rel=1e-15)
    assert not found.flip_channels


# Whose processors are run themselves, or have no class that works with Pillow.
OWN = {"facebook/levit-128S", "sail/poolformer_s12", "google/tipsv2-b14"}


@pytest.mark.parametrize("checkpoint", sorted(PUBLISHED.keys() - {DINOV3, NAFLEX} - OWN))
def test_published_checkpoints_get_the_pixels_of_their_own_processor(
    tmp_path: Path, checkpoint: str
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[checkpoint]))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert processor.backend == "pil"
    found = read_preprocessing(tmp_path)
    for image in images():
        # Only their rounding to float32 remains; the pixels are the same.
        assert greys_apart(found, image, theirs(processor, image)) < 1e-3, image.size


def test_naflex_gets_the_patches_of_its_own_processor(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[NAFLEX]))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert processor.backend == "pil"
    found = read_preprocessing(tmp_path)
    assert found.pixels == PatchSpec(patch=16, max_patches=256, resample=2)
    for image in images():
        expected = processor(image, return_tensors="np")
        shown = expected["pixel_attention_mask"][0] == 1
        values = cut(image, found.pixels)[1:][shown] * found.scale + found.shift
        own = expected["pixel_values"][0][shown].reshape(values.shape)
        np.testing.assert_allclose(values, own, atol=1e-6)


def test_dinov3_gets_the_pixels_of_its_processor_rounded_to_8_bits(tmp_path: Path) -> None:
    """Its only processor needs torchvision, which resizes float tensors by this function of
    torch's. Rounding after each of the two passes moves a value by one level at most."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[DINOV3]))
    found = read_preprocessing(tmp_path)
    as_vit = transformers.ViTImageProcessorPil(**{**PUBLISHED[DINOV3], "device": None})
    mean, std = PUBLISHED[DINOV3]["image_mean"], PUBLISHED[DINOV3]["image_std"]
    for image in images():
        assert greys_apart(found, image, theirs(as_vit, image)) < 1e-3, image.size
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        resized = torch.nn.functional.interpolate(
            values, (224, 224), mode="bilinear", antialias=True, align_corners=False
        )
        expected = (resized[0].permute(1, 2, 0).numpy().astype(np.float64) - mean) / std
        assert greys_apart(found, image, expected) < 1.001, image.size


def test_dinov3_has_its_own_defaults(tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    (published / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[DINOV3]))
    keys = {"image_processor_type": "DINOv3ViTImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(keys))
    assert read_preprocessing(tmp_path) == read_preprocessing(published)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CLIP", {}),
        ("CLIP", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("CLIP", {"size": GONE, "crop_size": GONE, "image_mean": GONE, "image_std": GONE}),
        ("CLIP", {"size": [48, 40], "do_center_crop": False}),
        ("CLIP", {"size": {"height": 48, "width": 40}, "do_center_crop": False, "resample": 1}),
        ("CLIP", {"size": 48, "default_to_square": True, "do_center_crop": False}),
        ("CLIP", {"size": 31, "crop_size": {"height": 40, "width": 33}}),
        ("CLIP", {"do_resize": False, "crop_size": 90}),
        ("CLIP", {"size": {"height": 48, "width": 40}, "do_center_crop": None}),
        ("CLIP", {"do_rescale": None}),
        ("CLIP", {"do_rescale": False, "crop_pct": None}),
        ("CLIP", {"do_normalize": False, "image_mean": GONE, "image_std": GONE}),
        ("CLIP", {"rescale_factor": 1 / 127.5, "do_pad": False, "pad_size": 512}),
        ("CLIP", {"image_mean": 0.5, "image_std": 0.25}),
        ("Bit", {"size": 64, "crop_size": 48, "resample": GONE}),
        ("Blip", {"size": 48, "resample": GONE, "do_center_crop": None}),
        ("ConvNext", {"size": 70, "crop_pct": 0.9}),
        ("ConvNext", {"size": 383}),
        ("ConvNext", {"size": 385, "crop_pct": None}),
        ("ConvNext", {"do_resize": False, "do_center_crop": True}),
        ("EfficientNet", {"size": 48, "rescale_offset": True}),
        ("EfficientNet", {"size": 48, "rescale_offset": True, "do_rescale": False}),
        ("EfficientNet", {"size": 48, "do_normalize": False, "do_center_crop": True}),
        ("MobileViT", {"size": 31, "do_normalize": True}),
        ("MobileViT", {"do_flip_channel_order": False}),
    ],
)
def test_settings_mean_what_they_mean_to_the_processor(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    found = read(tmp_path, image_processor_type=f"{kind}ImageProcessor", **changes)
    processor = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(tmp_path)
    for image in images()[4:6]:
        assert greys_apart(found, image, theirs(processor, image)) < 1e-3, image.size


@pytest.mark.parametrize("suffix", ["ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"])
def test_a_processor_class_is_known_by_all_its_names(tmp_path: Path, suffix: str) -> None:
    plain = read(tmp_path)
    changes = {"image_processor_type": GONE, "feature_extractor_type": f"CLIP{suffix}"}
    assert read(tmp_path, **changes) == plain
    assert read(tmp_path, image_processor_type=f"CLIP{suffix}") == plain


@pytest.mark.parametrize("model_type", ["clip", "altclip", "metaclip_2"])
def test_without_a_name_the_class_follows_from_the_model(tmp_path: Path, model_type: str) -> None:
    plain = read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert read(tmp_path, image_processor_type=GONE) == plain


@pytest.mark.parametrize("config", [{}, {"model_type": "bert"}, {"model_type": 3}])
def test_a_class_that_cannot_be_inferred_is_asked_for(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: image_processor_type "):
        read(tmp_path, image_processor_type=GONE)
