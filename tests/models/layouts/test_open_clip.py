"""Checkpoints in OpenCLIP's layout give what open_clip gives, or are refused in a sentence."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.open_clip import read_config
from deployments.models import texts
from deployments.models.encoder import Encoder
from deployments.models.export import prepare
from deployments.models.layouts import open_clip_tokenizers
from deployments.models.layouts.open_clip_images import read_preprocessing
from deployments.models.texts import load_tokenizer
from deployments.pixels.geometry import fit
from deployments.texts import own_tokenizer
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import PixelSpec
from tests.models.comparison import TEXTS, compare, in_torch
from tests.models.conftest import in_float32, update
from tests.models.odd_images import odd_images, picture
from tests.models.open_clip_checkpoints import OpenClipReference, write

Made = Callable[[str], Path]
Loaded = Callable[[str], Encoder]
Changed = Callable[..., Path]

FILES = {name: odd_images()[name] for name in ("31 x 33", "640 x 480", "1:40", "RGBA")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a tiny checkpoint. Not to be changed."""
    root = tmp_path_factory.mktemp("open_clip")
    return cache(lambda name: write(name, root / name))


@pytest.fixture(scope="module")
def loaded(made: Made) -> Loaded:
    return cache(lambda name: Encoder.load(in_float32(made(name))))


@pytest.fixture
def changed(made: Made, tmp_path: Path) -> Changed:
    """A copy of one whose configuration, or weights, are changed."""

    def change(
        name: str,
        *,
        without: Iterable[str] = (),
        adding: Iterable[str] = (),
        files: Iterable[str] = (),
        **parts: dict[str, Any],
    ) -> Path:
        folder = shutil.copytree(made(name), tmp_path / "checkpoint", dirs_exist_ok=True)
        path = folder / "open_clip_config.json"
        config = json.loads(path.read_text())
        for part, keys in parts.items():
            place = config if part == "preprocess_cfg" else config["model_cfg"]
            place[part] |= keys
        path.write_text(json.dumps(config))
        weights = load_file(folder / "open_clip_model.safetensors")
        weights = {key: value for key, value in weights.items() if key not in set(without)}
        weights |= {key: torch.ones(2) for key in adding}
        save_file(weights, folder / "open_clip_model.safetensors")
        for file in files:
            (folder / file).unlink()
        return folder

    return change


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        Encoder.load(in_float32(folder, **settings))
    return str(caught.value)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP2", "xlm-roberta-base-ViT-B-32"])
def test_vectors_are_those_of_open_clip(made: Made, loaded: Loaded, name: str) -> None:
    found = compare(in_torch(loaded(name)), OpenClipReference(made(name)), FILES)
    assert found.image >= 0.9999
    assert found.spread < 0.99
    assert found.text is not None
    assert found.text >= 0.9999
    assert found.probability is not None
    assert found.probability < 1e-3


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_pixels_are_open_clips_to_the_last_grey_level(
    made: Made, mode: str, interpolation: str, size: tuple[int, int]
) -> None:
    folder = made("ViT-B-32")
    config = read_config(folder)
    keys = {"resize_mode": mode, "interpolation": interpolation, "size": size, "fill_color": 7}
    keys |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    config.preprocess.update(keys)
    spec = read_preprocessing(open_clip, folder, config, visual=None).pixels
    assert isinstance(spec, PixelSpec)
    transform = open_clip.transform
    theirs = transform.image_transform_v2(transform.PreprocessCfg(**keys), is_train=False)
    shapes = [(64, 64), (63, 65), (65, 63), (7, 9), (80, 48), (81, 47), (200, 31), (30, 199)]
    for number, (width, height) in enumerate([*shapes, (333, 222), (5, 120), (101, 150)]):
        pixels = picture(width, height, seed=number)
        expected = (theirs(Image.fromarray(pixels)) * 255).round().byte().permute(1, 2, 0)
        assert np.array_equal(fit(pixels, spec), expected.numpy()), (width, height)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-H-14-CLIPA", "ViT-B-16-SigLIP"])
def test_tokens_are_those_of_open_clip(made: Made, loaded: Loaded, name: str) -> None:
    encoder = loaded(name)
    texts = [*TEXTS, "&lt;b&gt; &eacute; schÃ¶n", "!<end_of_text> [SEP]</s>", "it'S \u0345x\ud800"]
    assert encoder.tokenizer_json is not None
    assert encoder.text is not None
    read = TextTokenizer(encoder.tokenizer_json, max_tokens=encoder.text.max_tokens).encode(texts)
    expected = OpenClipReference(made(name)).tokenizer([t.replace("\ud800", "�") for t in texts])
    last = int(expected[0, -1])  # of the empty text, which is padded
    for row, encoded in zip(expected.tolist(), read, strict=True):
        ids = [0 if name == "ViT-H-14-CLIPA" and n == 3 else n for n in encoded.ids]
        assert ids + [last] * (len(row) - len(ids)) == row


def test_short_texts_are_not_padded_where_nothing_looks_at_padding(loaded: Loaded) -> None:
    tower: Any = loaded("ViT-B-32").text_tower
    assert tower._rows(torch.zeros((2, 5), dtype=torch.int32)).shape == (2, 5)


# What is refused


def test_weights_that_are_missing_or_not_read_are_named(changed: Changed) -> None:
    folder = changed("ViT-B-32", without=["visual.ln_post.bias"])
    assert "lack 1 of the weights" in refused(folder)
    assert "(visual.ln_post.bias)" in refused(folder)
    folder = changed("ViT-B-32", adding=["visual.adapter.weight"])
    assert "hold 1 weights" in refused(folder)


def test_a_logit_bias_is_not_made_up(changed: Changed) -> None:
    assert "(logit_bias)" in refused(changed("ViT-B-16-SigLIP2", without=["logit_bias"]))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"text_cfg": {"tokenizer_kwargs": {"reduction_mask": "random"}}}, "sets reduction_mask "),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/x"}}}, "sets bpe_path for"),
        ({"text_cfg": {"tokenizer_kwargs": 5}}, "tokenizer_kwargs should be an object"),
        ({"text_cfg": {"tokenizer_mode": "clips"}}, "sets tokenizer_mode for the tokenizer"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:acme/x"}}, "would be downloaded"),
        ({"vision_cfg": {"width": 50}}, "open_clip cannot "),
        ({"vision_cfg": {"no_such_key": 1}}, "open_clip cannot build the model"),
        ({"preprocess_cfg": {"resize_mode": "fold"}}, "cannot read its preprocess_cfg"),
        ({"preprocess_cfg": {"resize_mode": "longest", "fill_color": 999}}, "fill_color is 999"),
    ],
)
def test_a_configuration_that_raylens_cannot_follow_is_refused(
    changed: Changed, parts: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(changed("ViT-B-32", **parts))


def test_another_pooling_is_refused(made: Made) -> None:
    assert "model.pooling is 'cls', which OpenCLIP's" in refused(made("ViT-B-32"), pooling="cls")


def test_a_tokenizer_may_not_bring_code(changed: Changed) -> None:
    code = {"tokenizer_kwargs": {"trust_remote_code": True}}
    assert "sets trust_remote_code for" in refused(changed("ViT-B-16-SigLIP2", text_cfg=code))


def test_a_tokenizer_is_packed_without_the_weights_beside_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[str] = []

    def pack(folder: Path, names: list[str]) -> str | None:
        packed.extend(names)
        return texts.convert(load_tokenizer(folder), sys.maxsize)

    monkeypatch.setattr(open_clip_tokenizers, "convert", lambda *_: None)
    monkeypatch.setattr(own_tokenizer, "pack", pack)
    Encoder.load(in_float32(made("ViT-H-14-CLIPA")))
    assert {"tokenizer.json", "tokenizer_config.json"} <= {*packed}
    assert not any("open_clip" in name for name in packed)


def test_a_text_tower_without_its_configuration_says_which(
    changed: Changed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = changed("xlm-roberta-base-ViT-B-32", files=["config.json"])
    assert "config.json of 'xlm-roberta-base', which is neither" in refused(folder)


@pytest.mark.slow
def test_an_export_says_which_files_it_borrowed(
    changed: Changed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = changed("xlm-roberta-base-ViT-B-32")
    lender = tmp_path / "hub" / "models--xlm-roberta-base"
    (lender / "snapshots" / "c0ffee").mkdir(parents=True)
    (lender / "refs").mkdir()
    (lender / "refs" / "main").write_text("c0ffee")
    (folder / "config.json").rename(lender / "snapshots" / "c0ffee" / "config.json")
    export, _ = prepare(in_float32(folder))
    assert export.manifest.borrowed == {"xlm-roberta-base": "c0ffee"}


def test_a_text_tower_that_may_name_code_on_the_hub_is_refused(changed: Changed) -> None:
    folder = changed("xlm-roberta-base-ViT-B-32")
    update(folder / "config.json", {"attn_implementation": "acme/attention"})
    assert "config.json: has attn_implementation, which may name code" in refused(folder)


def test_without_the_library_the_sentence_says_what_to_install(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    assert "pip install 'raylens[openclip]'" in refused(made("ViT-B-32"))


# Pickles


@pytest.mark.slow
def test_a_pickle_gives_the_same_vectors(
    made: Made, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = shutil.copytree(made("ViT-B-32"), tmp_path / "pickled")
    weights = load_file(folder / "open_clip_model.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    plain, pickled = loaded("ViT-B-32"), Encoder.load(in_float32(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    assert np.array_equal(plain.encode(pixels), pickled.encode(pixels))
    assert plain.identity() != pickled.identity()
