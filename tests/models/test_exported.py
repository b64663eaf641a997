"""An export is found by a key of everything that it is made from, and of nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import exported
from deployments.models.exported import (
    Export,
    NotExportableError,
    export_key,
    find,
    keep_settled,
    read,
    write_manifest,
)
from deployments.models.precision import Settled
from deployments.settings import ModelSettings
from tests.models.conftest import Exported, Tiny

Changed = Callable[..., Path]
COMMIT = "0123456789" * 4


def key(folder: Path, **settings: Any) -> str:
    return export_key(ModelSettings(id=str(folder), **settings))


def test_a_checkpoint_has_the_same_key_wherever_it_lies(tiny: Tiny, tmp_path: Path) -> None:
    copy = tmp_path / tiny("CLIP").name
    shutil.copytree(tiny("CLIP"), copy)
    assert key(copy) == key(tiny("CLIP"))
    assert key(copy, precision="int8", threads=7) == key(copy)


def test_every_byte_of_a_checkpoint_counts(tiny: Tiny, tmp_path: Path) -> None:
    copy = tmp_path / tiny("CLIP").name
    shutil.copytree(tiny("CLIP"), copy)
    keys = {key(copy)}
    for name in ("model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        data = bytearray((copy / name).read_bytes())
        if name == "model.safetensors":
            data[-3] ^= 1
        else:
            data += b" "
        (copy / name).write_bytes(data)
        keys.add(key(copy))
    assert len(keys) == 4


@pytest.mark.parametrize("other", [{"pooling": "mean"}, {"max_num_patches": 64}])
def test_what_changes_the_vectors_is_another_export(tiny: Tiny, other: dict[str, Any]) -> None:
    assert key(tiny("ViT"), **other) != key(tiny("ViT"))


def test_another_package_version_changes_the_key(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(tiny("ViT"))
    exported._made_with.cache_clear()
    monkeypatch.setattr(exported, "version", lambda package: "99")
    try:
        assert key(tiny("ViT")) != before
    finally:
        exported._made_with.cache_clear()


@pytest.mark.parametrize("name", ["modules.py", "open_clip.py", "pickles.py", "layout.py"])
def test_the_code_that_reads_checkpoints_changes_the_key(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = exported._made_with.__wrapped__()
    read_bytes = Path.read_bytes

    def changed(path: Path) -> bytes:
        is_it = path.parent.name == "checkpoints" and path.name == name
        return read_bytes(path) + (b"#" if is_it else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert exported._made_with.__wrapped__() != before


def test_a_pinned_model_needs_neither_files_nor_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("looked for")

    monkeypatch.setattr(exported, "find_checkpoint", fail)
    pinned = export_key(ModelSettings(id="openai/clip", revision=COMMIT))
    assert pinned != export_key(ModelSettings(id="openai/clip", revision=COMMIT[::-1]))
    assert export_key(ModelSettings()) != pinned
    text = {"id": "openai/clip", "revision": COMMIT, "text_id": "acme/text"}
    keys = {export_key(ModelSettings(**text, text_revision=rev)) for rev in (COMMIT, COMMIT[::-1])}
    assert len(keys | {pinned}) == 3
    with pytest.raises(AssertionError, match="looked for"):
        export_key(ModelSettings(id="openai/clip", revision="main"))


def test_an_export_is_found_in_the_cache_and_in_a_folder_of_exports(
    exported: Exported, tiny: Tiny, home: Path, tmp_path: Path
) -> None:
    made = exported("ViT")
    settings = ModelSettings(id=str(tiny("ViT")))
    assert find(settings) is None
    shutil.copytree(made.folder, tmp_path / "exports" / made.key)
    elsewhere = find(settings.model_copy(update={"exports": str(tmp_path / "exports")}))
    assert elsewhere is not None
    assert elsewhere.folder == tmp_path / "exports" / made.key
    assert elsewhere.manifest == made.manifest
    shutil.copytree(made.folder, home / made.key)
    found = find(settings)
    assert found is not None
    assert found.folder == home / made.key


def test_an_export_of_other_borrowed_files_is_none(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = shutil.copytree(exported("ViT").folder, tmp_path / "export")
    write_manifest(folder, replace(exported("ViT").manifest, borrowed={"acme/bert": COMMIT}))
    assert read(folder) is not None  # no copy of acme/bert is here
    lender = tmp_path / "hub" / "models--acme--bert"
    (lender / "refs").mkdir(parents=True)
    for commit in (COMMIT, COMMIT[::-1]):
        (lender / "snapshots" / commit).mkdir(parents=True)
        (lender / "snapshots" / commit / "config.json").write_text("{}")
        (lender / "refs" / "main").write_text(commit)
        assert (read(folder) is not None) == (commit == COMMIT)


def test_an_export_without_a_manifest_does_not_count(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(exported("ViT").folder, folder)
    (folder / "manifest.json").unlink()
    assert read(folder) is None


def test_a_broken_manifest_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(exported("ViT").folder, folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as an export"):
        read(folder)


def test_the_manifest_says_what_the_ingress_needs(exported: Exported) -> None:
    clip, processor = exported("CLIP").manifest, exported("Swin").manifest
    assert clip.text is not None
    assert clip.text.score == "softmax"
    assert processor.text is None
    assert bytes.fromhex(clip.identity) != bytes.fromhex(processor.identity)
    assert json.loads((exported("CLIP").folder / "manifest.json").read_text())["dimensions"] > 0


def test_what_was_settled_is_kept_for_each_wanted_precision(exported: Exported, home: Path) -> None:
    made = exported("ViT")
    home.mkdir(parents=True)
    export = Export(home / made.key, made.manifest)
    assert export.settled("auto") is None
    settled = Settled("bfloat16", "bfloat16, because a test says so")
    keep_settled(export, "auto", settled)
    assert export.settled("auto") == settled
    assert export.settled("int8") is None
    keep_settled(export, "int8", "no way")
    with pytest.raises(NotExportableError, match="no way"):
        export.settled("int8")
