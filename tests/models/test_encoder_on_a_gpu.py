"""What an encoder asks of a GPU, and in which order. Computed on the CPU by a fake."""

import threading

import numpy as np
import pytest
import torch

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models import encoder as module
from deployments.models.encoder import Encoder
from deployments.models.engines.torch import TorchEngine
from deployments.settings import ModelSettings
from tests.models.conftest import Tiny
from tests.models.encoders import FakeModel, encode, noise
from tests.models.gpu import FakeCuda, fake_cuda

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return fake_cuda(monkeypatch)


def test_a_batch_is_copied_computed_and_awaited_in_its_threads_stream(cuda: FakeCuda) -> None:
    model = FakeModel()
    encoder = encode(model, device="cuda:0")
    stack = noise(3, 4, 6)

    def see(flat: torch.Tensor) -> torch.Tensor:
        cuda.say(f"run in {cuda.current_stream().name}")
        return flat

    model.change = see
    cuda.said.clear()
    vectors = encoder.encode(stack)
    assert cuda.said == [
        "pin in stream 1",
        "to in stream 1, not waiting",
        "run in stream 1",
        "cpu in stream 1",
    ]
    np.testing.assert_array_equal(vectors, encode().encode(stack))
    assert cuda.current_stream() is cuda.default


def test_every_thread_has_a_stream_which_begins_when_the_weights_are_there(cuda: FakeCuda) -> None:
    encoder = encode(device="cuda:0")
    thread = threading.Thread(target=encoder.encode, args=[noise(1, 4, 6)])
    thread.start()
    thread.join()
    encoder.encode(noise(1, 4, 6))
    waits = [said for said in cuda.said if "waits" in said]
    assert waits == ["stream 1 waits for default", "stream 2 waits for default"]
    assert "pin in stream 2" in cuda.said


async def test_a_checkpoint_on_a_gpu_runs_in_two_threads_in_the_precision_that_passed(
    cuda: FakeCuda, tiny: Tiny
) -> None:
    settings = ModelSettings(id=str(tiny("CLIP")), device="cuda", threads=1)
    engine = await TorchEngine.load(settings, reason="a test")
    assert engine.lanes == 2
    assert (engine.loaded.device, engine.loaded.precision) == ("cuda:0", "bfloat16")
    assert "Fake GPU" in engine.loaded.device_reason
    # What the default stream has freed is of no use to the others.
    assert cuda.said.index("empty the cache") < cuda.said.index("stream 1 waits for default")
    pixels = noise(2, *engine.loaded.pixels.height_width)
    alone = Encoder.load(settings.model_copy(update={"device": "cpu", "precision": "bfloat16"}))
    np.testing.assert_array_equal(await engine.encode(pixels), alone.encode(pixels))


def test_float32_on_a_gpu_is_float32_in_convolutions_too(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Encoder.load(ModelSettings(id=str(tiny("ViT")), precision="float32", device="cpu", threads=1))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("built", "why"), [(True, "sees no GPU"), (False, "without CUDA")])
def test_without_a_gpu_it_runs_on_the_cpu_or_refuses_if_it_was_told_to(
    monkeypatch: pytest.MonkeyPatch, built: bool, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    assert module._choose_device("cpu")[0] == "cpu"
    device, reason = module._choose_device("auto")
    assert device == "cpu"
    assert why in reason
    with pytest.raises(CheckpointError, match=why):
        module._choose_device("cuda")
