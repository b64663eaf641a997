"""A processor's settings become pixels and a multiply-add that equal it, or it runs itself."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.integrity import preprocessor_settings
from deployments.models.spec import Preprocessing, read_preprocessing
from deployments.pixels.geometry import fit
from deployments.wire import PixelSpec, ProcessorSpec
from tests.models.published import PUBLISHED

CLIP: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 48, "width": 56},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
GONE = object()
DINOV3 = "facebook/dinov3-vits16-pretrain-lvd1689m"
Array = NDArray[np.float64]


def write(folder: Path, **changes: object) -> Path:
    keys = {key: value for key, value in {**CLIP, **changes}.items() if value is not GONE}
    (folder / "preprocessor_config.json").write_text(json.dumps(keys))
    return folder


def read(folder: Path, **changes: object) -> Preprocessing:
    return read_preprocessing(write(folder, **changes))


@cache
def images() -> list[Image.Image]:
    """Noise, the hardest to resize alike, in odd sizes; the last one is grey."""
    random = np.random.default_rng(0)
    sizes = [(1, 1), (8, 8), (7, 280), (3200, 80), (2000, 1500), (83, 120), (224, 224), (501, 333)]
    noise = [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in sizes]
    grey = np.repeat(random.integers(0, 256, (77, 131, 1), dtype=np.uint8), 3, axis=2)
    return [Image.fromarray(image) for image in (*noise, grey)]


def theirs(processor: Any, image: Image.Image) -> Array:
    """(H, W, 3) as the model gets it."""
    values = processor(image, return_tensors="np")["pixel_values"]
    return np.asarray(values[0], np.float64).transpose(1, 2, 0)


def greys_apart(found: Preprocessing, image: Image.Image, expected: Array) -> float:
    """The largest difference of ours to what is expected, in levels of uint8."""
    assert isinstance(found.pixels, PixelSpec)
    if found.flip_channels:
        expected = expected[:, :, ::-1]
    pixels = np.asarray(fit(image, found.pixels))
    assert pixels.shape == (*found.pixels.size, 3)
    return float(np.abs((expected - found.shift) / found.scale - pixels).max())


# The fast path


def test_the_bundled_model_resizes_crops_and_normalises(bundled_folder: Path) -> None:
    found = read_preprocessing(bundled_folder)
    assert found.pixels == PixelSpec(resize=("shortest_edge", 256), resample=3, crop=(224, 224))
    assert found.scale == pytest.approx((1 / 128,) * 3, rel=1e-15)
    assert found.shift == pytest.approx((-127 / 128,) * 3, rel=1e-15)
    assert not found.flip_channels


@pytest.mark.parametrize("checkpoint", sorted(PUBLISHED.keys() - {DINOV3}))
def test_published_checkpoints_get_the_pixels_of_their_own_processor(
    tmp_path: Path, checkpoint: str
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[checkpoint]))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert processor.backend == "pil"
    found = read_preprocessing(tmp_path)
    for image in images():
        # What remains is the float32 of their arithmetic; the pixels are the same.
        assert greys_apart(found, image, theirs(processor, image)) < 1e-3, image.size


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
def test_a_class_that_nothing_tells_is_asked_for(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: image_processor_type "):
        read(tmp_path, image_processor_type=GONE)


# Where the settings are


def test_settings_saved_together_with_a_tokenizer_are_found(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    image_processor = transformers.CLIPImageProcessorPil(size=64, crop_size=48)
    transformers.CLIPProcessor(image_processor, tokenizer).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "preprocessor_config.json").exists()
    assert preprocessor_settings(tmp_path / "saved")[0].name == "processor_config.json"
    pixels = read_preprocessing(tmp_path / "saved").pixels
    assert pixels == PixelSpec(resize=("shortest_edge", 64), resample=3, crop=(48, 48))


def test_nested_settings_come_first_as_in_transformers(tmp_path: Path) -> None:
    write(tmp_path)
    nested = {"image_processor": {**CLIP, "crop_size": 40}, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert dict(theirs.crop_size) == {"height": 40, "width": 40}
    assert read_preprocessing(tmp_path).pixels.size == (40, 40)


@pytest.mark.parametrize("content", [{"processor_class": "CLIPProcessor"}, {"image_processor": 1}])
def test_a_processor_file_without_nested_settings_is_passed_over(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    plain = read(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    assert preprocessor_settings(tmp_path)[0] == tmp_path / "preprocessor_config.json"
    assert read_preprocessing(tmp_path) == plain


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: .*(JSON|empty)"):
        read_preprocessing(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: the file is missing"):
        read_preprocessing(tmp_path)


# The processor itself


@pytest.mark.parametrize(
    ("changes", "name", "size"),
    [
        ({"image_processor_type": "LevitFeatureExtractor"}, "Levit", (48, 56)),
        ({"image_processor_type": "PvtImageProcessor", "do_center_crop": True}, "Pvt", (48, 56)),
        ({"do_pad": True, "pad_size": 90}, "CLIP", (90, 90)),
        ({"size": {"shortest_edge": 64, "longest_edge": 128}}, "CLIP", (48, 56)),
        ({"an_unknown_key": 1}, "CLIP", (48, 56)),
        ({"crop_pct": 0.9}, "CLIP", (48, 56)),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 1.1}, "ConvNext", (64, 64)),
        (
            {"image_processor_type": "ConvNextImageProcessor", "do_center_crop": True},
            "ConvNext",
            (48, 56),
        ),
    ],
)
def test_what_is_not_known_to_be_exact_is_left_to_the_processor(
    tmp_path: Path, changes: dict[str, Any], name: str, size: tuple[int, int]
) -> None:
    found = read(tmp_path, **changes)
    assert isinstance(found.pixels, ProcessorSpec)
    assert (found.pixels.name, found.pixels.size) == (f"{name}ImageProcessorPil", size)
    assert (found.scale, found.shift, found.flip_channels) == ((1,) * 3, (0,) * 3, False)

    processor_class = getattr(transformers, found.pixels.name)
    rebuilt = processor_class.from_dict(json.loads(found.pixels.config))
    original = processor_class.from_pretrained(tmp_path)
    for image in images()[-2:]:
        values = theirs(rebuilt, image)
        assert values.shape == (*size, 3)
        assert (values == theirs(original, image)).all()


# What is refused


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


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"longest_edge": 224}},
        {"size": {"max_pixels": 4096, "min_pixels": 64}},
        {"size": {"height": 64}},
        {"size": "64"},
        {"crop_size": {"shortest_edge": 48}},
        {"do_pad": True, "pad_size": 20},
        {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 64, "width": 64}},
        {"image_processor_type": "LevitImageProcessor", "size": {"longest_edge": 64}},
        {"image_processor_type": "LevitImageProcessor", "image_std": [1.0, 0.0, 1.0]},
        {"image_processor_type": "VitPoseImageProcessor"},  # wants boxes
        {"image_processor_type": "Sam2ImageProcessor"},  # torchvision alone
        {"image_processor_type": "NoSuchImageProcessor"},
        {"image_processor_type": "CLIPModel"},
        {"image_processor_type": "DINOv3ViTImageProcessorFast", "do_center_crop": True},
    ],
)
def test_what_no_processor_turns_into_images_is_refused_by_file_and_class(
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
def test_what_is_more_or_less_than_an_image_is_refused(
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


@pytest.mark.parametrize("suffix", ["ImageProcessor", "ImageProcessorFast"])
def test_naflex_is_refused_with_what_to_use_instead(tmp_path: Path, suffix: str) -> None:
    changes = {"image_processor_type": f"Siglip2{suffix}", "max_num_patches": 256, "size": GONE}
    with pytest.raises(CheckpointError, match=r"NaFlex.*google/siglip2-base-patch16-224"):
        read(tmp_path, **changes)
