"""A complete cache needs no hub; missing files are named or, online, downloaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.checkpoints.hub import download
from deployments.checkpoints.integrity import check_files
from tests.checkpoints.checkpoints import FILES, write
from tests.checkpoints.downloads import ID, refused
from tests.hub import Hub


def test_offline_a_complete_cache_is_enough(hub: Hub, offline: Callable[[], None]) -> None:
    commit = hub.add(ID, FILES)
    folder = download(ID, None)
    offline()
    hub.asked.clear()
    assert [download(ID, revision) for revision in (None, "main", commit)] == [folder] * 3
    assert hub.asked == []


def test_offline_a_model_that_is_not_cached_is_named(hub: Hub, offline: Callable[[], None]) -> None:
    offline()
    assert refused().startswith(
        "model 'acme/vit' is not in the local cache, and HF_HUB_OFFLINE is set; "
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "merges.txt"])
def test_offline_a_missing_file_is_named(hub: Hub, offline: Callable[[], None], name: str) -> None:
    hub.add(ID, FILES)
    (download(ID, None) / name).unlink()
    offline()
    assert f"incomplete in the local cache: 1 file(s) are missing ({name})" in refused()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_offline_a_missing_file_is_named_even_without_the_hubs_list(
    hub: Hub, cache: Path, offline: Callable[[], None], name: str
) -> None:
    write(cache / "models--acme--vit/refs", {"main": b"0123"})
    write(cache / "models--acme--vit/snapshots/0123", FILES)  # as old clients left it
    offline()
    check_files(download(ID, None))
    (cache / "models--acme--vit/snapshots/0123" / name).unlink()
    assert f"snapshots/0123/{name}: the file is missing" in refused()


def test_offline_an_interrupted_download_is_named(
    hub: Hub, cache: Path, offline: Callable[[], None]
) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    blob = (folder / "model.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.1234abcd.incomplete"))  # the link leads nowhere now
    offline()
    assert "1 file(s) are missing (model.safetensors)" in refused()


def test_online_an_interrupted_download_is_completed(hub: Hub, cache: Path) -> None:
    hub.add(ID, FILES)
    folder = download(ID, None)
    blob = (folder / "model.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.1234abcd.incomplete"))
    check_files(download(ID, None))


def test_a_damaged_blob_is_named_with_the_folder_to_delete(hub: Hub, cache: Path) -> None:
    hub.add(ID, FILES)
    blob = (download(ID, None) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-10])
    model = cache / "models--acme--vit"
    assert refused().endswith(f"delete {model} to have it downloaded again")
    assert model.is_dir()
    shutil.rmtree(model)
    check_files(download(ID, None))
