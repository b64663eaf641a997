"""Batches run in torch's own threads, one at a time in each, and a stuck one is noticed."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from deployments.models.encoder import Encoder
from deployments.models.engines.engine import EngineError
from deployments.models.engines.torch import ModelThread, TorchEngine
from deployments.settings import ModelSettings
from deployments.wire import NoMemoryError
from tests.models.conftest import Tiny
from tests.models.encoders import FakeModel, FakeTextTower, encode, encode_both, noise


async def test_all_jobs_run_in_the_same_thread() -> None:
    thread = ModelThread()
    first = await thread.run(threading.get_ident)
    second = await thread.run(threading.get_ident)
    assert first == second != threading.get_ident()


def test_an_idle_model_thread_is_healthy() -> None:
    ModelThread().check(stuck_after_s=5)


async def test_a_busy_model_thread_is_healthy_until_it_is_stuck() -> None:
    thread = ModelThread()
    release = threading.Event()
    job = asyncio.create_task(thread.run(release.wait))
    await asyncio.sleep(0.05)
    thread.check(stuck_after_s=5)
    with pytest.raises(EngineError, match="stuck"):
        thread.check(stuck_after_s=0.01)
    release.set()
    await job
    thread.check(stuck_after_s=5)


async def test_an_error_in_a_job_reaches_its_caller_and_leaves_the_thread_healthy() -> None:
    thread = ModelThread()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    thread.check(stuck_after_s=5)


class FakeEncoder:
    """An `Encoder` whose batches last until they are released, and which remembers warm-ups."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.release = threading.Event()
        self.threads: set[int] = set()
        self.warmed: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        assert self.release.wait(10)
        return np.zeros((len(pixels), 3), np.float32)

    def warm_up(self, images: int) -> None:
        self.warmed.append(images)


@pytest.fixture
def fake(encoder: Encoder) -> FakeEncoder:
    return FakeEncoder(encoder)


@pytest.fixture
def engine(fake: FakeEncoder) -> Callable[[int], TorchEngine]:
    def make(threads: int) -> TorchEngine:
        return TorchEngine(fake, [ModelThread() for _ in range(threads)], reason="a test")  # type: ignore[arg-type]

    return make


async def test_batches_run_side_by_side_each_in_a_thread_of_its_own(
    fake: FakeEncoder, engine: Callable[[int], TorchEngine]
) -> None:
    two = engine(2)
    pixels = np.zeros((1, 224, 224, 3), np.uint8)
    batches = [asyncio.create_task(two.encode(pixels)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert len(fake.threads) == two.lanes == 2
    with pytest.raises(EngineError, match="stuck"):
        two.check(stuck_after_s=0.01)
    fake.release.set()
    assert [len(v) for v in await asyncio.gather(*batches)] == [1, 1, 1]


async def test_every_thread_is_warmed_up_for_every_size_once(
    fake: FakeEncoder, engine: Callable[[int], TorchEngine]
) -> None:
    two = engine(2)
    await two.warm_up(images=3, texts=4)
    assert sorted(fake.warmed) == [1, 1, 2, 2, 3, 3]
    await two.warm_up(images=4, texts=4)
    assert sorted(fake.warmed)[6:] == [4, 4]


def no_memory_above(most: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(flat: torch.Tensor) -> torch.Tensor:
        if len(flat) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return flat

    return change


async def test_batches_that_a_gpu_has_no_memory_for_are_computed_in_parts() -> None:
    model = FakeModel(no_memory_above(3))
    engine = TorchEngine(encode(model), [ModelThread()], reason="a test")
    model.sizes.clear()
    pixels = noise(8, 4, 6)
    vectors = await engine.encode(pixels)
    assert model.sizes == [8, 4, 2, 2, 2, 2]
    assert (vectors == encode().encode(pixels)).all()


async def test_a_gpu_that_others_use_is_warmed_up_for_the_batches_that_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = FakeModel(no_memory_above(3))
    engine = TorchEngine(encode(model), [ModelThread()], reason="a test")
    model.sizes.clear()
    await engine.warm_up(images=8, texts=1)
    assert model.sizes == [1, 8, 2, 3, 4]
    assert "no memory left for a batch of 8" in caplog.text
    model.sizes.clear()
    model.change = no_memory_above(8)
    await engine.warm_up(images=8, texts=1)  # as at the next change of the batch settings
    assert model.sizes == [8, 4, 5, 6, 7]


async def test_a_gpu_that_others_use_is_warmed_up_for_the_texts_that_fit() -> None:
    class Tower(FakeTextTower):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return no_memory_above(3)(super().forward(tokens))

    engine = TorchEngine(encode_both(Tower()), [ModelThread()], reason="a test")
    await engine.warm_up(images=1, texts=8)
    assert len(await engine.encode_text(np.ones((8, 2), np.int32))) == 8


async def test_a_gpu_without_memory_for_one_image_cannot_serve_the_model() -> None:
    model = FakeModel()
    engine = TorchEngine(encode(model), [ModelThread()], reason="a test")
    model.change = no_memory_above(0)
    with pytest.raises(NoMemoryError, match="not even for one item; see what else uses the GPU"):
        await engine.warm_up(images=8, texts=1)


async def test_a_gpu_without_memory_for_one_image_is_not_a_broken_model() -> None:
    model = FakeModel()
    engine = TorchEngine(encode(model), [ModelThread()], reason="a test")
    model.change = no_memory_above(0)
    with pytest.raises(NoMemoryError, match=r"batch of 1$"):
        await engine.encode(noise(2, 4, 6))
    with pytest.raises(NoMemoryError):
        await engine.prove()


async def test_vectors_that_are_not_finite_fail_the_engines_own_test() -> None:
    model = FakeModel()
    engine = TorchEngine(encode(model), [ModelThread()], reason="a test")
    await engine.prove()
    model.change = lambda flat: flat * torch.nan
    with pytest.raises(EngineError, match="not finite"):
        await engine.prove()


async def test_a_loaded_checkpoint_gives_the_encoders_vectors_and_says_what_runs_it(
    tiny: Tiny,
) -> None:
    settings = ModelSettings(id=str(tiny("CLIP")), precision="float32", device="cpu", threads=1)
    engine = await TorchEngine.load(settings, reason="torch, because a test says so")
    encoder = Encoder.load(settings)
    pixels = np.random.default_rng(0).integers(
        0, 256, (2, *engine.loaded.pixels.height_width, 3), dtype=np.uint8
    )
    assert (await engine.encode(pixels) == encoder.encode(pixels)).all()
    tokens = encoder.tokenize(["a cat", "dogs"])
    assert (await engine.encode_text(tokens) == encoder.encode_text(tokens)).all()
    await engine.prove()
    assert (engine.loaded.engine, engine.lanes) == ("torch", 1)
    assert engine.loaded.engine_reason == "torch, because a test says so"
