"""What `raylens serve` checks before it starts Ray, and what it need not download."""

import shutil
from pathlib import Path

import pytest

from deployments.models import exported, preflight, stores
from deployments.settings import ModelSettings
from deployments.wire import PixelSpec

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine without a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    root = exported.cache_root()
    root.mkdir(parents=True)
    return root


def pinned(**others: object) -> ModelSettings:
    return ModelSettings.model_validate(
        {"id": "openai/clip", "revision": COMMIT, "device": "cpu", **others}
    )


def put(root: Path, model: ModelSettings) -> Path:
    """An export that has a manifest and nothing else."""
    manifest = exported.Manifest(
        id=model.id,
        revision=model.revision,
        identity="00",
        dimensions=3,
        vectors_per_image=None,
        pixels=PixelSpec(resize=("exact", 4, 6), resample=3, crop=None),
        tolerant=False,
        text=None,
        borrowed={},
    )
    folder = root / exported.export_key(model)
    folder.mkdir(parents=True)
    exported.write_manifest(folder, manifest)
    return folder


def test_a_pinned_model_that_is_exported_needs_no_checkpoint(home: Path) -> None:
    assert not preflight._is_exported(pinned())
    folder = put(home, pinned())
    assert preflight._is_exported(pinned())
    assert not preflight._is_exported(pinned(revision="main"))
    shutil.rmtree(folder)
    assert not preflight._is_exported(pinned())


@pytest.mark.parametrize("others", [{"compile": "off"}, {"device": "cuda"}])
def test_a_model_that_torch_runs_needs_its_checkpoint(home: Path, others: dict[str, str]) -> None:
    put(home, pinned())
    assert not preflight._is_exported(pinned(**others))


def test_a_model_for_which_no_precision_passed_here_needs_its_checkpoint(home: Path) -> None:
    put(home, pinned())
    export = exported.find(pinned())
    assert export is not None
    exported.keep_settled(export, "auto", "it is wrong here")
    assert not preflight._is_exported(pinned())


@pytest.mark.parametrize("there", [True, False])
def test_a_model_whose_export_is_in_a_bucket_needs_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    asked = []

    def has(store: str, key: str) -> bool:
        asked.append((store, key))
        return there

    monkeypatch.setattr(stores, "has", has)
    model = pinned(exports="s3://bucket/exports")
    assert preflight._is_exported(model) == there
    assert asked == [("s3://bucket/exports", exported.export_key(model))]
