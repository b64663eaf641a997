"""The bundled model, loaded once; tiny random checkpoints; and resizing with Pillow alone."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache as cache_results
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from deployments.checkpoints import bundled
from deployments.models.encoder import Encoder
from deployments.models.export import prepare as prepare_export
from deployments.models.exported import Export, cache_root
from deployments.settings import ModelSettings
from deployments.wire import ImageSpec, PixelSpec
from tests.models.families import TINY, write

Prepare = Callable[[Path, ImageSpec], NDArray[np.uint8]]

Tiny = Callable[[str], Path]

Exported = Callable[[str], Export]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two torch threads wait for each other at every operation: seconds, on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's number of threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all these tests, in the place of $XDG_CACHE_HOME."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where exports are kept, in a cache that is empty and this test's alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return cache_root()


@pytest.fixture(scope="session")
def bundled_folder(cache: Path) -> Path:
    return bundled.snapshot(cache)


@pytest.fixture(scope="session")
def encoder(cache: Path) -> Encoder:
    """The bundled model, shared: nothing in it changes after loading."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return Encoder.load(ModelSettings(threads=1))


@pytest.fixture(scope="session")
def bundled_export(cache: Path) -> Export:
    """The bundled model's export, shared. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return prepare_export(ModelSettings(precision="float32", threads=1))[0]


@pytest.fixture(scope="session")
def exported(cache: Path, tiny: "Tiny") -> Exported:
    """The export of a tiny checkpoint of `families.TINY`, by its name. Not to be changed."""

    @cache_results
    def export(name: str) -> Export:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(cache))
            return prepare_export(
                ModelSettings(id=str(tiny(name)), precision="float32", threads=1)
            )[0]

    return export


@pytest.fixture(scope="session")
def prepare() -> Prepare:
    """Turns an image file into uint8 (H, W, 3) as a specification says, with Pillow alone."""

    def run(path: Path, pixels: ImageSpec) -> NDArray[np.uint8]:
        assert isinstance(pixels, PixelSpec)
        image = Image.open(path).convert("RGB")
        filter_ = Image.Resampling(pixels.resample)
        if pixels.resize is not None and pixels.resize[0] == "exact":
            image = image.resize((pixels.resize[2], pixels.resize[1]), filter_)
        elif pixels.resize is not None:
            short, edge = min(image.size), pixels.resize[1]
            width, height = (int(edge * side / short) for side in image.size)
            image = image.resize((width, height), filter_)
        if pixels.crop is not None:
            height, width = pixels.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The folder of a tiny checkpoint of `families.TINY`, by its name. Not to be changed."""
    root = tmp_path_factory.mktemp("tiny")

    @cache_results
    def folder(name: str) -> Path:
        return write(name, root / str(list(TINY).index(name)))

    return folder


@pytest.fixture
def changed(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tiny checkpoint that differs in its weights, config.json or processor."""

    def change(
        name: str,
        *,
        config: Mapping[str, Any] | None = None,
        processor: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(tiny(name), folder, dirs_exist_ok=True)
        update(folder / "config.json", config or {})
        update(folder / "preprocessor_config.json", processor or {})
        weights = load_file(folder / "model.safetensors")
        left = {key: values for key, values in weights.items() if not key.startswith(without)}
        assert not without or len(left) < len(weights)
        save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return change


def update(path: Path, keys: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def in_float32(folder: Path, **others: Any) -> ModelSettings:
    """Settings of the checkpoint in `folder`."""
    return ModelSettings(id=str(folder), threads=1, **{"precision": "float32", **others})
