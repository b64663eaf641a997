"""Models are downloaded whole, once and without pickles; broken downloads are resumed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files
from tests.checkpoints.checkpoints import FILES, sharded
from tests.checkpoints.downloads import ID, LARGE, refused
from tests.hub import CONVERTER, Hub

# What is downloaded


def test_a_model_is_downloaded_once(hub: Hub) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, None)
    check_files(folder)
    assert folder.name == commit
    asked = len(hub.asked)
    assert download(ID, None) == folder
    assert not [line for line in hub.asked[asked:] if "/resolve/" in line]


def test_pickles_code_and_other_runtimes_are_never_downloaded(hub: Hub) -> None:
    others = ["pytorch_model.bin", "model.pt", "modeling_acme.py", "onnx/model.safetensors"]
    others += ["model.fp16.safetensors", "flax_model.msgpack", "tf_model.h5", "README.md"]
    hub.add(ID, FILES | dict.fromkeys(others, b"other"))
    folder = download(ID, None)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == FILES.keys()


def test_shards_are_downloaded(hub: Hub) -> None:
    hub.add(ID, sharded([f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]))
    check_files(download(ID, None))


def test_a_revision_is_a_branch_a_tag_a_pull_request_or_a_commit(hub: Hub) -> None:
    references = ["main", "v1.0", "feature/x", "refs/pr/3"]
    commits = [
        hub.add(ID, {**FILES, "config.json": f'{{"model_type": "{r}"}}'.encode()}, reference=r)
        for r in references
    ]
    assert [download(ID, r).name for r in references] == commits
    assert [download(ID, c).name for c in commits] == commits
    assert len(set(commits)) == 4


def test_a_cached_commit_needs_no_network(hub: Hub) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, commit)
    hub.asked.clear()
    assert download(ID, commit) == folder
    assert hub.asked == []


def test_a_download_is_resumed_where_the_connection_broke(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.add(ID, FILES | {"model.safetensors": LARGE})
    hub.cuts = [1_250_000]
    folder = download(ID, None)
    assert (folder / "model.safetensors").read_bytes() == LARGE
    gets = [line for line in hub.asked if line.startswith("GET") and "model.safetensors" in line]
    assert [line.partition("bytes=")[2] for line in gets] == ["", "1200000-"]


def test_a_failed_download_leaves_no_incomplete_file_in_the_cache(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add(ID, FILES)
    hub.cuts = [100] * 6
    assert "cannot be downloaded (" in refused()
    assert not list(cache.rglob("*.incomplete"))
    check_files(download(ID, None))


# Models that have only pickles, which Hugging Face's bot has converted to safetensors

PICKLES = {"pytorch_model.bin": b"pickled", **{n: c for n, c in FILES.items() if "safe" not in n}}


def convert(hub: Hub, *, author: str = CONVERTER, number: int = 7) -> tuple[str, str]:
    """Adds a model of pickles and a pull request; returns the commits of both."""
    base = hub.add(ID, PICKLES)
    weights = {"model.safetensors": FILES["model.safetensors"]}
    return base, hub.request(ID, weights, number=number, author=author)


def test_safetensors_come_from_the_converters_pull_request(hub: Hub, log: list[str]) -> None:
    base, converted = convert(hub)
    assert download(ID, None).name == converted
    assert download(ID, base).name == converted
    assert log[0] == (
        f"Model acme/vit has only pickles at {base}; using the safetensors that Hugging Face's "
        "SFconvertbot made of them (refs/pr/7)"
    )


def test_a_pull_request_by_someone_else_is_not_used(hub: Hub) -> None:
    convert(hub, author="mallory")
    assert "safetensors alone, because pickles" in refused()


def test_a_conversion_of_an_older_commit_is_not_used(hub: Hub) -> None:
    convert(hub)
    hub.add(ID, PICKLES | {"pytorch_model.bin": b"retrained"})
    assert "safetensors alone, because pickles" in refused()


def test_offline_the_conversion_downloaded_earlier_is_used(
    hub: Hub, offline: Callable[[], None]
) -> None:
    base, converted = convert(hub)
    download(ID, None)
    offline()
    assert [download(ID, revision).name for revision in (base, None)] == [converted] * 2
