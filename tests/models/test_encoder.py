"""Pixels become the model's own vectors, and what does not fit is refused."""

import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.encoder import Encoder
from deployments.models.spec import Preprocessing
from deployments.models.towers import ImageTower
from deployments.settings import ModelSettings, WantedPrecision
from deployments.wire import NoMemoryError, ProcessorSpec
from tests.models.conftest import Tiny
from tests.models.encoders import MEAN, SPEC, STD, FakeModel, encode, load, noise

pytestmark = pytest.mark.usefixtures("threads")

Changed = Callable[..., Path]


# Images


def test_scaling_inside_the_graph_is_the_processors_arithmetic() -> None:
    pixels = np.arange(4 * 4 * 6 * 3, dtype=np.uint8).reshape(4, 4, 6, 3)  # every value, 0 to 255
    exact = (pixels.astype(np.float64) / 255 - MEAN) / STD
    expected = exact.transpose(0, 3, 1, 2).reshape(4, -1)
    np.testing.assert_allclose(encode().encode(pixels), expected, atol=1e-6)


def test_channels_are_flipped_after_they_were_scaled() -> None:
    pixels = noise(2, 4, 6)
    straight = encode().encode(pixels).reshape(2, 3, 24)
    flipped = encode(spec=replace(SPEC, flip_channels=True)).encode(pixels).reshape(2, 3, 24)
    np.testing.assert_array_equal(flipped, straight[:, ::-1])


def test_values_from_a_checkpoints_own_processor_are_used_unchanged() -> None:
    own = ProcessorSpec(name="Acme", config="{}", height_width=(4, 6))
    encoder = encode(spec=Preprocessing(own, scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)))
    values = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    expected = values.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(encoder.encode(values), expected)
    encoder.warm_up(1)
    with pytest.raises(ValueError, match="should be float32"):
        encoder.encode(noise(2, 4, 6))


def test_pixels_are_scaled_in_float32_whatever_the_model_runs_in() -> None:
    tower = ImageTower(FakeModel(), SPEC)
    before = tower.scale.clone()
    tower.to(torch.bfloat16).to("cpu")
    assert tower.scale.dtype == tower.shift.dtype == torch.float32
    torch.testing.assert_close(tower.scale, before, atol=0, rtol=0)
    vectors = tower(torch.from_numpy(noise(2, 4, 6)))
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, vectors.bfloat16().float())  # rounded on the way in, once


def test_the_bundled_model_describes_itself(encoder: Encoder) -> None:
    assert encoder.dimensions == 1280
    assert encoder.checkpoint.id == "efficientnet-lite0"
    assert encoder.device in ("cpu", "cuda:0")
    assert encoder.device_reason.startswith(f"{encoder.device}, because ")
    assert encoder.precision_reason
    assert encoder.text is None
    assert encoder.tokenizer_json is None


@pytest.mark.parametrize("size", [1, 3])
def test_vectors_are_finite_float32_rows_and_not_normalised(encoder: Encoder, size: int) -> None:
    vectors = encoder.encode(noise(size))
    assert vectors.dtype == np.float32
    assert vectors.shape == (size, 1280)
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1).min() > 2


def test_a_vector_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    stack = noise(8)
    alone = np.concatenate([encoder.encode(image[None]) for image in stack])
    np.testing.assert_allclose(encoder.encode(stack), alone, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(stack[::-1])[::-1], alone, atol=2e-5)


def test_read_only_pixels_are_taken_and_left_alone() -> None:
    pixels = noise(2, 4, 6)
    pixels.flags.writeable = False
    encoder = encode()
    np.testing.assert_array_equal(encoder.encode(pixels), encoder.encode(pixels.copy()))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 6, 4, 3), np.uint8),
        np.zeros((1, 3, 4, 6), np.uint8),
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((1, 4, 6, 3), np.float32),
    ],
)
def test_pixels_of_the_wrong_shape_or_type_are_an_error(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"should be uint8 \(N, 4, 6, 3\), not "):
        encode().encode(pixels)


def test_a_batch_without_memory_is_let_go_before_the_gpus_memory_is_tidied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeModel()
    encoder = encode(model)
    left: list[weakref.ref[torch.Tensor]] = []
    found: list[object] = []

    def run_out(flat: torch.Tensor) -> None:
        computed = flat * 2
        left.append(weakref.ref(computed))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.change = run_out
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append(left[0]()))
    with pytest.raises(NoMemoryError, match="no memory left for a batch of 3"):
        encoder.encode(noise(3, 4, 6))
    assert found == [None]


def test_warming_up_runs_a_batch_of_the_given_size() -> None:
    model = FakeModel()
    encoder = encode(model)
    model.sizes.clear()
    encoder.warm_up(5)
    assert model.sizes == [5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_warming_up_refuses_vectors_that_are_not_finite(value: float) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        encode(FakeModel(lambda flat: flat * value)).warm_up(2)


@pytest.mark.parametrize(
    "change",
    [lambda flat: flat[:, None], lambda flat: flat.sum(0)[None, None], lambda flat: flat[0]],
)
def test_a_model_without_one_vector_per_image_is_refused(change: Any) -> None:
    with pytest.raises(CheckpointError, match="does not give one vector for an image of 4 x 6"):
        encode(FakeModel(change))


def test_a_model_that_takes_no_images_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot embed an image of 4 x 6 pixels"):
        encode(torch.nn.Linear(3, 3))


# Loading


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_at_odds_with_its_preprocessor_is_refused(
    changed: Changed, precision: WantedPrecision
) -> None:
    folder = changed("ViT", processor={"size": {"height": 40, "width": 40}})
    with pytest.raises(CheckpointError, match="cannot embed an image of 40 x 40 pixels"):
        Encoder.load(ModelSettings(id=str(folder), precision=precision))


def test_the_identity_depends_on_weights_and_pooling_but_not_on_the_folder(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny("ViT")
    copy = shutil.copytree(folder, tmp_path / folder.name)
    identity = load(folder).identity()
    assert load(copy).identity() == identity
    other = Encoder.load(ModelSettings(id=str(copy), precision="bfloat16"))
    assert other.precision == "bfloat16"
    assert other.identity() == identity
    assert load(copy, pooling="mean").identity() != identity
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert load(copy).identity() != identity


def test_the_configured_number_of_threads_is_used(tiny: Tiny) -> None:
    load(tiny("ViT"), threads=1)
    assert torch.get_num_threads() == 1


def test_the_device_can_be_pinned_to_the_cpu(tiny: Tiny) -> None:
    encoder = load(tiny("ViT"), device="cpu")
    assert encoder.device == "cpu"
    assert encoder.device_reason == "this process runs on the CPU"


def test_a_checkpoint_that_is_overwritten_in_place_does_not_change_a_loaded_model(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("CLIP"), folder)
    encoder = load(folder, device="cpu")
    pixels = noise(2, *encoder.preprocessing.pixels.height_width)
    tokens = encoder.tokenize(["a cat"])
    before = encoder.encode(pixels), encoder.encode_text(tokens)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:  # and not truncated, which would end this process
        file.seek(weights.stat().st_size // 4)
        file.write(b"?" * (weights.stat().st_size // 2))
    assert (encoder.encode(pixels) == before[0]).all()
    assert (encoder.encode_text(tokens) == before[1]).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(CheckpointError, match=r"model\.device is 'cuda', but this P"):
        Encoder.load(ModelSettings(id="/none", device="cuda"))
