"""Checkpoints of timm give timm's own vectors, whoever saved them; what is unknown is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.export import prepare as prepare_export
from deployments.models.layouts import timm as timm_layout
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.wire import PixelSpec
from tests.models.comparison import compare, in_openvino, in_torch
from tests.models.conftest import in_float32, update
from tests.models.odd_images import odd_images
from tests.models.reference import quiet
from tests.models.timm_checkpoints import TIMM, TimmReference, Tiny, build, save, write

Folder = Callable[[str], Path]

SOME = ("8 x 8", "225 x 223", "640 x 480", "1:40", "grey of 16 bits", "CMYK", "GIF")
FILES = {name: odd_images()[name] for name in SOME}
QUICK = ("ResNet, not square", "ResNet, with borders", "ViT", "ConvNeXt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a checkpoint of `TIMM`. Not to be changed."""
    root = tmp_path_factory.mktemp("timm")
    return cache(lambda name: write(name, root / str(list(TIMM).index(name))))


@pytest.fixture
def changed(saved: Folder, tmp_path: Path) -> Callable[..., Path]:
    """A copy of one with other keys in its config.json, or in the `pretrained_cfg` there."""

    def change(name: str = "ViT", cfg: dict[str, Any] | None = None, **config: Any) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(saved(name), folder)
        said = read(folder)["pretrained_cfg"] | (cfg or {})
        update(folder / "config.json", {"pretrained_cfg": said} | config)
        return folder

    return change


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def encode(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(in_float32(folder, **settings))


def load(folder: Path) -> LoadedCheckpoint:
    return timm_layout.load(Checkpoint("acme", None, folder), in_float32(folder))


def vectors(loaded: LoadedCheckpoint) -> NDArray[np.float32]:
    pixels = loaded.preprocessing.pixels
    assert isinstance(pixels, PixelSpec)
    noise = torch.randn((2, 3, *pixels.height_width), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return np.asarray(loaded.vision(noise))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as refused:
        encode(folder, **settings)
    return str(refused.value)


@pytest.mark.parametrize("name", QUICK)
def test_vectors_are_those_of_timm(saved: Folder, name: str) -> None:
    found = compare(in_torch(encode(saved(name))), TimmReference(saved(name)), FILES)
    assert found.image >= 0.9999
    assert found.spread < 0.99


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", ["ViT", "ConvNeXt"])
def test_exported_models_give_the_vectors_of_timm(saved: Folder, name: str) -> None:
    exported = in_openvino(*prepare_export(in_float32(saved(name))))
    assert compare(exported, TimmReference(saved(name)), FILES).image >= 0.9999


@pytest.mark.parametrize("mistake", [{"crop_pct": 0.9}, {"std": [0.6] * 3}])
def test_a_mistake_in_the_pixels_shows(
    saved: Folder, changed: Callable[..., Path], mistake: dict[str, Any]
) -> None:
    folder = changed(cfg=mistake)
    found = compare(in_torch(encode(folder)), TimmReference(saved("ViT")), FILES)
    assert found.image < 0.9999


def test_the_size_for_tests_is_not_used_as_in_timms_examples(changed: Callable[..., Path]) -> None:
    folder = changed("ResNet", cfg={"test_input_size": [3, 192, 192], "test_crop_pct": 1.0})
    pixels = load(folder).preprocessing.pixels
    assert isinstance(pixels, PixelSpec)
    assert pixels.height_width == (160, 160)


def test_the_keys_of_old_files_stand_at_the_top(
    saved: Folder, changed: Callable[..., Path]
) -> None:
    folder = changed("ConvNeXt")
    config = read(folder)
    old = {"architecture": config["architecture"], **config["pretrained_cfg"]}
    old |= {"url": "https://example.org/weights.pth", "hf_hub_id": "timm/elsewhere"}
    (folder / "config.json").write_text(json.dumps(old))
    np.testing.assert_array_equal(vectors(load(folder)), vectors(load(saved("ConvNeXt"))))


@pytest.mark.parametrize("name", ["ViT", pytest.param("Swin", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["TimmWrapperModel", "TimmWrapperForImageClassification"])
def test_what_transformers_saves_of_timms_models_gives_the_same_vectors(
    saved: Folder, changed: Callable[..., Path], tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / kind
    args = read(saved(name))["model_args"]
    args = {key: args[key] for key in args if key not in ("num_classes", "in_chans", "global_pool")}
    with quiet():
        model = getattr(transformers, kind).from_pretrained(changed(name, model_args=args or None))
        model.save_pretrained(folder)
    assert read(folder)["model_type"] == "timm_wrapper"
    expected = vectors(load(saved(name)))
    np.testing.assert_array_equal(vectors(load(folder)), expected)
    change_weights(folder, lambda held: {f"timm_model.{name}": held[name] for name in held})
    np.testing.assert_array_equal(vectors(load(folder)), expected)


def test_the_classifier_is_not_needed_and_may_be_of_any_size(
    saved: Folder, changed: Callable[..., Path]
) -> None:
    folder = changed("DeiT, distilled")
    expected = vectors(load(saved("DeiT, distilled")))
    change_weights(folder, lambda held: held | {"head.weight": torch.zeros(3, 48)})
    np.testing.assert_array_equal(vectors(load(folder)), expected)
    change_weights(folder, lambda held: {n: held[n] for n in held if not n.startswith("head")})
    np.testing.assert_array_equal(vectors(load(folder)), expected)


@pytest.mark.slow
def test_weights_of_older_versions_are_timms_to_translate(
    saved: Folder, changed: Callable[..., Path]
) -> None:
    def older(held: dict[str, Any]) -> dict[str, Any]:
        """As Microsoft's own code saved Swin, from which timm's names differ by a stage."""
        names = {"head.fc": "head"} | {
            f"layers.{stage}.downsample": f"layers.{stage - 1}.downsample" for stage in (1, 2, 3)
        }
        return {rename(name, names): values for name, values in held.items()}

    folder = changed("Swin")
    change_weights(folder, older)
    assert "layers.0.downsample.norm.weight" in load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(vectors(load(folder)), vectors(load(saved("Swin"))))


def rename(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        if name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    return name


@pytest.mark.slow
def test_weights_that_share_memory_need_be_saved_only_once(tmp_path: Path) -> None:
    folder = save(build(TIMM["CoaT"]), tmp_path)
    expected = vectors(load(folder))
    change_weights(
        folder,
        lambda held: {n: v for n, v in held.items() if not n.startswith("serial_blocks1.1.cpe.")},
    )
    np.testing.assert_array_equal(vectors(load(folder)), expected)


def test_a_file_that_is_overwritten_does_not_change_a_loaded_model(
    changed: Callable[..., Path],
) -> None:
    folder = changed("ResNet")
    loaded = load(folder)
    expected = vectors(loaded)
    (folder / "model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(vectors(loaded), expected)


# timm itself would leave a weight that DLA's file lacks as it was drawn at random.
@pytest.mark.parametrize(("name", "part"), [("ViT", "blocks.0.mlp.fc1."), ("DLA", "level2.tree1.")])
def test_missing_weights_are_refused(changed: Callable[..., Path], name: str, part: str) -> None:
    folder = changed(name)
    change_weights(folder, lambda held: {n: held[n] for n in held if not n.startswith(part)})
    assert "its files lack" in refusal(folder)
    assert part in refusal(folder)


def test_unread_weights_are_refused_unless_timm_knows_of_them(
    changed: Callable[..., Path], saved: Folder, tmp_path: Path
) -> None:
    folder = changed()
    change_weights(folder, lambda held: held | {"blocks.0.adapter": torch.zeros(3)})
    assert "its files hold 1 weights that VisionTransformer does not read" in refusal(folder)
    shutil.rmtree(folder)
    folder = changed("DLA")
    change_weights(folder, lambda held: held | {"level3.project.0.weight": torch.zeros(3)})
    np.testing.assert_array_equal(vectors(load(folder)), vectors(load(saved("DLA"))))


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"crop_mode": "middle"}, 'crop_mode is "middle"; it should be one of center, border'),
        ({"interpolation": "random"}, 'interpolation is "random"; it should be one of nearest'),
        ({"mean": None}, "its pretrained_cfg holds no mean, so it does not say what pixels"),
        ({"std": [1, 0, 1]}, "std is [1, 0, 1]; it should not hold a zero"),
        ({"std": [1, 1]}, "std is [1, 1]; it should be three numbers"),
        ({"crop_pct": -1}, "crop_pct is -1; it should be a number, 0.1 or more"),
        ({"input_size": [3, 160]}, "the model's input_size is [3, 160], and raylens has only [3,"),
        ({"input_size": 160}, "timm cannot read it ('int' object is not subscriptable)"),
        ({"crop_mode": "border", "mean": [2, 2, 2]}, "mean is [2, 2, 2]; it should be a colour"),
        ({"unheard_of": 1}, "timm cannot load it (PretrainedCfg.__init__() got an unexpected"),
    ],
)
def test_settings_of_pixels_that_are_unknown_are_refused(
    changed: Callable[..., Path], cfg: dict[str, Any], words: str
) -> None:
    assert words in refusal(changed("ResNet", cfg=cfg))


def test_models_of_other_than_three_channels_are_refused(tmp_path: Path) -> None:
    folder = save(build(Tiny("test_convnext", cfg={"input_size": (1, 160, 160)})), tmp_path)
    assert "the model's input_size is [1, 160, 160]" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "vit_of_tomorrow"}, f"which timm {timm.__version__} does not have"),
        ({"architecture": "hf-hub:timm/resnet18"}, "which timm"),
        ({"architecture": 7}, "architecture should be a name"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "model_args holds checkpoint_path"),
        ({"model_args": {"features_only": True}}, "model_args holds features_only"),
        (
            {"model_args": {"depth": 1}},
            "timm cannot load it (ConvNeXt.__init__() got an unexpected",
        ),
        ({"model_args": {"global_pool": ""}}, "does not give one vector for an image"),
        ({"pretrained_cfg": None}, "pretrained_cfg should be an object"),
        ({"pretrained_cfg": {}, "model_type": "timm_wrapper"}, "holds no input_size"),
    ],
)
def test_models_that_cannot_be_built_are_refused(
    changed: Callable[..., Path], config: dict[str, Any], words: str
) -> None:
    assert words in refusal(changed("ConvNeXt", **config))


def test_timms_models_pool_as_timm_does(saved: Folder) -> None:
    assert "set model.pooling to auto" in refusal(saved("ViT"), pooling="mean")


def test_without_timm_the_message_says_what_to_install(
    saved: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm is not installed: pip install 'raylens[timm]'" in refusal(saved("ViT"))
