"""A checkpoint is found, checked file by file, and loaded without running foreign code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors as hub
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from deployments.models import bundled
from deployments.models.checkpoint import CheckpointError
from deployments.models.loading import find_checkpoint, load_model
from deployments.settings import Model

Save = Callable[..., Path]


class FakeHub:
    """Has one model; remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: dict[str, Any] = {}

    def __call__(self, repo_id: str, **options: Any) -> str:
        self.asked = {"repo_id": repo_id, **options}
        return str(self.folder)


def find(folder: Path, **settings: Any) -> Any:
    return find_checkpoint(Model(id=str(folder), **settings))


def test_the_bundled_id_means_the_bundled_model(
    cache: Path, bundled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    found = find_checkpoint(Model())
    assert (found.id, found.folder) == (bundled.BUNDLED_ID, bundled_folder)
    assert found.revision is not None
    assert bundled.SHA256.startswith(found.revision)


def test_a_folder_is_itself(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit)
    found = find(folder)
    assert (found.id, found.revision, found.folder) == (folder.name, None, folder)  # no path


def test_a_folder_that_is_not_there_is_not_looked_up_at_the_hub(tmp_path: Path) -> None:
    fake = FakeHub(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        find_checkpoint(Model(id=str(tmp_path / "none")), download=fake)
    assert fake.asked == {}


def test_a_revision_is_for_hub_ids_only(save: Save, tiny_vit: Any) -> None:
    with pytest.raises(CheckpointError, match="remove the revision"):
        find(save(tiny_vit), revision="main")


def test_a_hub_model_carries_the_commit_it_was_resolved_to(
    save: Save, tiny_vit: Any, tmp_path: Path
) -> None:
    folder = save(tiny_vit).rename(tmp_path / "0123abcd")
    fake = FakeHub(folder)
    found = find_checkpoint(Model(id="acme/vit", revision="v1"), download=fake)
    assert (found.id, found.revision, found.folder) == ("acme/vit", "0123abcd", folder)
    assert (fake.asked["repo_id"], fake.asked["revision"]) == ("acme/vit", "v1")


def test_pickles_and_code_are_never_downloaded(save: Save, tiny_vit: Any) -> None:
    fake = FakeHub(save(tiny_vit))
    find_checkpoint(Model(id="acme/vit"), download=fake)
    wanted = ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json"]
    wanted += ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    others = ["pytorch_model.bin", "model.pt", "modeling_acme.py", "onnx/model.safetensors"]
    others += ["model.fp16.safetensors", "flax_model.msgpack", "tf_model.h5", "README.md"]
    patterns = {key: fake.asked[key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(wanted + others, **patterns)) == wanted


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (hub.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (hub.HFValidationError("x"), "neither a bundled model, nor a folder"),
        (hub.GatedRepoError.__new__(hub.GatedRepoError), "accept its terms"),
        (hub.RepositoryNotFoundError.__new__(hub.RepositoryNotFoundError), "check the id"),
        (hub.RevisionNotFoundError.__new__(hub.RevisionNotFoundError), r"check model\.revision"),
        (ConnectionError("proxy\nrefused"), r"\(ConnectionError: proxy\); check the network"),
    ],
)
def test_a_failed_download_says_what_to_do(error: Exception, advice: str) -> None:
    def fail(*args: Any, **options: Any) -> str:
        raise error

    with pytest.raises(CheckpointError, match=f"'acme/vit' at revision 'v1' .*{advice}"):
        find_checkpoint(Model(id="acme/vit", revision="v1"), download=fail)


def test_offline_mode_is_respected(tmp_path: Path) -> None:
    code = (
        "from deployments.models.loading import *; from deployments.settings import Model\n"
        "try: find_checkpoint(Model(id='acme/vit'))\n"
        "except CheckpointError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.startswith(
        "model 'acme/vit' cannot be downloaded: the hub cannot be reached"
    )


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(save: Save, tiny_vit: Any, name: str) -> None:
    folder = save(tiny_vit)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"checkpoint/{name}: the file is missing"):
        find(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_truncated_file_is_named(save: Save, tiny_vit: Any, name: str) -> None:
    folder = save(tiny_vit)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) - 3])
    with pytest.raises(CheckpointError, match=f"checkpoint/{name}: "):
        find(folder)


def test_a_file_of_something_else_is_named(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*download it again"):
        find(folder)


def test_shards_are_checked_one_by_one(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    load_model(find(folder))
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=f"{shards[-1].name}: missing"):
        find(folder)


def test_a_checkpoint_of_pickles_is_refused(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit)
    (folder / "model.safetensors").unlink()
    torch.save(tiny_vit.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors alone, because pickles"):
        find(folder)


def test_weights_of_half_precision_are_loaded_as_float32(save: Save, tiny_vit: Any) -> None:
    model = load_model(find(save(tiny_vit.half())))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_an_unused_head_is_dropped_without_a_word(
    bundled_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_model(find(bundled_folder))
    assert type(model).__name__ == "EfficientNetModel"
    assert capfd.readouterr() == ("", "")


def test_a_missing_weight_is_never_left_random(save: Save, tiny_vit: Any) -> None:
    folder = save(tiny_vit)
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 of the weights .*pooler\.dense\.weight"):
        load_model(find(folder))


def change_config(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_weights_of_another_shape_are_refused(save: Save, tiny_vit: Any) -> None:
    folder = change_config(save(tiny_vit), intermediate_size=48)
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_model(find(folder))


def test_a_repositorys_own_code_is_not_run(save: Save, tiny_vit: Any, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    folder = change_config(
        save(tiny_vit),
        model_type="acme",
        auto_map={"AutoModel": "acme.Acme", "AutoConfig": "acme.C"},
    )
    (folder / "acme.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_model(find(folder))
    assert not marker.exists()
