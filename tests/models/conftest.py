"""One loaded bundled model, tiny random checkpoints, and the geometry done with Pillow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deployments.card import PixelSpec
from deployments.models import bundled
from deployments.models.encoder import Encoder
from deployments.settings import Model

Prepare = Callable[[Path, PixelSpec], NDArray[np.uint8]]

PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two torch threads wait for each other at every operation: seconds, on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for $XDG_CACHE_HOME."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def bundled_folder(cache: Path) -> Path:
    return bundled.snapshot(cache)


@pytest.fixture(scope="session")
def encoder(cache: Path) -> Encoder:
    """The bundled model, shared: nothing in it changes after loading."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return Encoder.load(Model(threads=1))


@pytest.fixture(scope="session")
def prepare() -> Prepare:
    """An image file to uint8 (H, W, 3), as a specification says and with Pillow alone."""

    def run(path: Path, pixels: PixelSpec) -> NDArray[np.uint8]:
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


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a transformers model as a checkpoint folder with a 32 x 32 preprocessor."""

    def write(model: Any, **save_options: Any) -> Path:
        folder = tmp_path / "checkpoint"
        model.save_pretrained(folder, **save_options)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
        return folder

    return write


@pytest.fixture
def tiny_vit() -> Any:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    return ViTModel(ViTConfig(**TINY, image_size=32, patch_size=8)).eval()


@pytest.fixture
def tiny_clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    text = {**TINY, "vocab_size": 99, "max_position_embeddings": 16}
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    return CLIPModel(config).eval()
