"""Exports go into a folder or a bucket, and come back whole or not at all."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import export as export_module
from deployments.models import stores
from deployments.models.export import prepare
from deployments.models.exported import cache_root
from deployments.settings import ModelSettings
from raylens.cluster import free_port
from tests.models.conftest import Exported, Tiny
from tests.until import until


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a folder in a bucket, on an S3 server of our own on loopback."""
    port = free_port()
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from pyarrow import fs

        system = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
        )
        try:

            def created() -> bool:
                with contextlib.suppress(OSError):
                    system.create_dir("models")
                    return True
                assert process.poll() is None
                return False

            until(created)
            yield f"s3://models/exports?endpoint_override=127.0.0.1:{port}&scheme=http"
        finally:
            process.kill()
            process.wait()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_bucket_gives_back_what_was_put_into_it(
    bucket: str, exported: Exported, tmp_path: Path
) -> None:
    made = exported("ViT")
    assert not stores.pull(bucket, made.key, tmp_path / made.key)
    assert stores.push(made.folder, bucket) == f"s3://models/exports/{made.key}"
    assert stores.pull(bucket, made.key, tmp_path / made.key)
    assert files(tmp_path / made.key) == files(made.folder)
    assert [path.name for path in tmp_path.iterdir()] == [made.key]


@pytest.mark.slow
def test_an_incomplete_upload_is_not_used(bucket: str, exported: Exported, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for name, data in files(exported("ViT").folder).items():
        if name != "manifest.json":
            (half / name).write_bytes(data)
    stores.push(half, bucket)
    assert not stores.pull(bucket, "half", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.slow
def test_a_replica_takes_its_model_from_the_bucket(
    bucket: str,
    exported: Exported,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = exported("CLIP")
    stores.push(made.folder, bucket)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(export_module, "_made", None)
    settings = ModelSettings(id=str(tiny("CLIP")), precision="float32", threads=1, exports=bucket)
    export, settled = prepare(settings)
    assert export.folder == cache_root() / made.key
    assert files(export.folder) == files(made.folder)
    assert settled.precision == "float32"


def test_an_unreachable_bucket_is_logged_and_the_model_exported_here(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def pull(*_: object) -> bool:
        raise CheckpointError("s3://x: no answer")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(stores, "pull", pull)
    settings = ModelSettings(
        id=str(tiny("ViT")), precision="float32", threads=1, exports="s3://x/y"
    )
    export, _ = prepare(settings)
    assert export.folder.parent == cache_root()
    assert "The model is exported here: s3://x: no answer." in caplog.text


@pytest.mark.parametrize("store", ["nosuchscheme://x/y", "s3://"])
def test_a_store_that_does_not_exist_is_an_error(store: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be (opened|read)"):
        stores.pull(store, "key", tmp_path / "key")


def test_a_folder_that_cannot_be_written_to_is_an_error(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        stores.push(exported("ViT").folder, os.fspath(tmp_path / "file"))


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CheckpointError, match="pip install 'raylens"):
        stores.pull("s3://models", "key", tmp_path / "key")


def test_a_stores_credentials_are_not_shown() -> None:
    assert stores.shown("s3://KEY:SECRET@bucket/exports/?region=x") == "s3://bucket/exports"
    assert stores.shown("/a/folder") == "/a/folder"


def test_pushing_an_export_into_its_own_folder_leaves_it_alone(exported: Exported) -> None:
    made = exported("ViT")
    assert stores.push(made.folder, str(made.folder.parent)) == str(made.folder)
    assert (made.folder / "manifest.json").exists()


def test_pushing_again_replaces_what_is_there(exported: Exported, tmp_path: Path) -> None:
    made = exported("ViT")
    (tmp_path / made.key).mkdir()
    (tmp_path / made.key / "old").write_text("")
    stores.push(made.folder, str(tmp_path))
    assert files(tmp_path / made.key) == files(made.folder)
