"""A checkpoint is found, and each of its files is checked before anything is loaded."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, Layout
from deployments.checkpoints.finding import find_checkpoint
from deployments.settings import ModelSettings
from tests.checkpoints.checkpoints import FILES, LFS_POINTER, sharded, write

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


class FakeHub:
    """Has one model; remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, id: str, revision: str | None, layout: Layout | None) -> Path:
        self.asked.append((id, revision))
        return self.folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoint", FILES)


def find(folder: Path) -> Checkpoint:
    return find_checkpoint(ModelSettings(id=str(folder)))


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# What an id means


def test_a_folder_is_used_in_place_and_named_without_its_path(folder: Path) -> None:
    assert find(folder) == Checkpoint("checkpoint", None, folder)  # no path in the id


def test_a_folder_that_is_not_there_is_not_looked_up_at_the_hub(tmp_path: Path) -> None:
    fake = FakeHub(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        find_checkpoint(ModelSettings(id=str(tmp_path / "none")), download=fake)
    assert fake.asked == []


def test_a_revision_is_for_hub_ids_only(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="remove the revision"):
        find_checkpoint(ModelSettings(id=str(folder), revision="main"))


def test_a_hub_model_carries_the_commit_it_was_resolved_to(folder: Path, tmp_path: Path) -> None:
    fake = FakeHub(folder.rename(tmp_path / "0123abcd"))
    found = find_checkpoint(ModelSettings(id="acme/vit", revision="v1"), download=fake)
    assert found == Checkpoint("acme/vit", "0123abcd", fake.folder)
    assert fake.asked == [("acme/vit", "v1")]


def test_finding_a_checkpoint_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, deployments.models.preflight; "
        "print(sorted({'torch', 'transformers', 'ray', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Damage: each sentence names the file and what to do


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"checkpoint/{name}: the file is missing" in refused(folder)


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith((".json", ".safetensors"))])
def test_a_truncated_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(FILES[name][:-1])
    sentence = refused(folder)
    assert f"checkpoint/{name}: " in sentence
    assert sentence.endswith("download it again")


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_empty_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert f"checkpoint/{name}: the file is empty; download it again" in refused(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_git_lfs_pointer_is_recognised(folder: Path, name: str) -> None:
    (folder / name).write_bytes(LFS_POINTER)
    sentence = refused(folder)
    assert f"checkpoint/{name}: is a Git LFS pointer" in sentence
    assert "git lfs pull" in sentence


@pytest.mark.parametrize(
    "content",
    [
        b"garbage" * 100,
        b"\0" * 40,
        (40).to_bytes(8, "little") + b"{" * 40,
        FILES["model.safetensors"][:20],
        FILES["model.safetensors"] + b"more",
        pickle.dumps({"weight": 1}),
    ],
)
def test_weights_that_are_not_safetensors_are_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors: cut short or not a safetensors file" in refused(folder)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_file_without_a_json_object_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert f"checkpoint/{name}: " in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_broken_link_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("../blobs/none")
    assert f"checkpoint/{name}: the file that it links to is missing" in refused(folder)


def test_a_folder_in_place_of_a_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "model.safetensors: cannot be read (Is a directory)" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_a_checkpoint_of_pickles_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    sentence = refused(folder)
    assert "model.safetensors: the file is missing" in sentence
    assert "safetensors alone, because pickles" in sentence


def test_a_pickle_in_place_of_safetensors_is_not_run(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(folder / "it-ran"), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    refused(folder)
    assert not (folder / "it-ran").exists()
    pickle.load(io.BytesIO((folder / "model.safetensors").read_bytes())).close()
    assert (folder / "it-ran").exists()


# Shards


def test_shards_are_found_by_their_index(tmp_path: Path) -> None:
    find(write(tmp_path, sharded(SHARDS)))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, sharded(SHARDS))
    (folder / SHARDS[1]).unlink()
    assert f"{SHARDS[1]}: the file is missing" in refused(folder)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, sharded(SHARDS))
    (folder / SHARDS[1]).write_bytes((folder / SHARDS[1]).read_bytes()[:-4])
    assert f"{SHARDS[1]}: cut short" in refused(folder)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "sub/model.safetensors", "", "./x"]
)
def test_an_index_names_files_of_its_own_folder_only(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, sharded(SHARDS))
    index = {"weight_map": {"weight.0": SHARDS[0], "weight.1": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"index.json: names {name!r}, which is not a file in its folder" in refused(folder)


@pytest.mark.parametrize(
    "index", [b"{}", b'{"weight_map": {}}', b'{"weight_map": []}', b"[]", b"{"]
)
def test_an_index_without_a_weight_map_is_named(tmp_path: Path, index: bytes) -> None:
    folder = write(tmp_path, sharded(SHARDS))
    (folder / "model.safetensors.index.json").write_bytes(index)
    assert "model.safetensors.index.json: " in refused(folder)


def test_a_broken_index_beside_whole_weights_does_not_matter(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    find(folder)


# In the hub's cache


def test_for_a_damaged_file_in_the_cache_the_advice_is_to_delete_the_model(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "models--acme--vit/snapshots/0123", FILES)
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])
    with pytest.raises(CheckpointError, match=r"delete .*models--acme--vit to have it downloaded"):
        find_checkpoint(ModelSettings(id="acme/vit"), download=FakeHub(folder))


def test_for_a_missing_file_in_the_cache_the_advice_is_to_start_online(tmp_path: Path) -> None:
    folder = write(tmp_path / "models--acme--vit/snapshots/0123", FILES)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: .* start once with the hub"):
        find_checkpoint(ModelSettings(id="acme/vit"), download=FakeHub(folder))
