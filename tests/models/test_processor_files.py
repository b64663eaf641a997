"""Settings are found where transformers finds them; its own processor runs the inexact ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.integrity import preprocessor_settings
from deployments.models.spec import read_preprocessing
from deployments.wire import PixelSpec, ProcessorSpec
from tests.models.processors import CLIP, images, read, theirs, write

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
    assert read_preprocessing(tmp_path).pixels.height_width == (40, 40)


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
    ("changes", "name", "height_width"),
    [
        ({"image_processor_type": "LevitFeatureExtractor"}, "Levit", (48, 56)),
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
    tmp_path: Path, changes: dict[str, Any], name: str, height_width: tuple[int, int]
) -> None:
    found = read(tmp_path, **changes)
    assert isinstance(found.pixels, ProcessorSpec)
    assert (found.pixels.name, found.pixels.height_width) == (
        f"{name}ImageProcessorPil",
        height_width,
    )
    assert (found.scale, found.shift, found.flip_channels) == ((1,) * 3, (0,) * 3, False)

    processor_class = getattr(transformers, found.pixels.name)
    rebuilt = processor_class.from_dict(json.loads(found.pixels.config))
    original = processor_class.from_pretrained(tmp_path)
    for image in images()[-2:]:
        values = theirs(rebuilt, image)
        assert values.shape == (*height_width, 3)
        assert (values == theirs(original, image)).all()
