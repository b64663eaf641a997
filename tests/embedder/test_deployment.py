"""The deployment without Ray, around an engine that computes next to nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.embedder import deployment
from deployments.models.engines.engine import EngineError
from deployments.settings import ModelSettings
from deployments.wire import Loaded, Pixels, Stack, StackVectors, TextSpec, Tokens, Vectors
from tests.fakes import CARD, TEXT

pytestmark = pytest.mark.usefixtures("replica")

DEPLOYMENT: Any = deployment.Embedder
Embedder: Any = DEPLOYMENT.func_or_class
STACK = np.zeros((2, 8, 8, 3), np.uint8)
TOKENS = np.ones((2, 3), np.int32)


class FakeEngine:
    """An `Engine` whose vectors are ones, and which remembers the stacks that it has run."""

    lanes = text_lanes = 1
    tokenizer_json = None

    def __init__(self, text: TextSpec | None) -> None:
        reported = {field.name: getattr(CARD, field.name) for field in fields(Loaded)}
        self.loaded = Loaded(**{**reported, "text": text})
        self.several = False
        self.error: Exception | None = None
        self.stacks: list[Stack] = []

    async def encode(self, pixels: Pixels) -> Vectors:
        return await self._encode(pixels)

    async def encode_text(self, tokens: Tokens) -> Vectors:
        return await self._encode(tokens)

    async def _encode(self, stack: Stack) -> Vectors:
        await asyncio.sleep(0.01)
        self.stacks.append(stack)
        if self.error is not None:
            raise self.error
        shape = stack.shape if self.several else stack.shape[:1]
        return np.ones((*shape, 12), np.float32)

    async def warm_up(self, *, images: int, texts: int) -> None:
        pass

    async def prove(self) -> None:
        if self.error is not None:
            raise self.error

    def check(self, *, stuck_after_s: float) -> None:
        pass


Start = Callable[..., Awaitable[tuple[Any, FakeEngine]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a replica of a model with this text tower, without what needs Ray."""
    idle = SimpleNamespace(check=lambda: None, start=lambda: None)
    monkeypatch.setattr(deployment, "NodePort", lambda: idle)
    monkeypatch.setattr(deployment, "Exporter", lambda metrics: idle)
    monkeypatch.setattr(ray, "get_gpu_ids", list)

    async def start(text: TextSpec | None = TEXT) -> tuple[Any, FakeEngine]:
        engine = FakeEngine(text)

        async def load_engine(*_: object, **__: object) -> FakeEngine:
            return engine

        monkeypatch.setattr(deployment, "load_engine", load_engine)
        replica = Embedder.__new__(Embedder)
        await replica.__init__(ModelSettings(batch_linger_ms=0), "a test")
        return replica, engine

    return start


def test_vectors_that_no_message_carries_are_refused_at_the_start() -> None:
    reported = {field.name: getattr(CARD, field.name) for field in fields(Loaded)}
    loaded = Loaded(**{**reported, "dimensions": 1024, "vectors_per_image": 900})
    deployment.check_fits(loaded)
    with pytest.raises(CheckpointError, match="gives 4096 vectors of 1024 numbers for an"):
        deployment.check_fits(replace(loaded, vectors_per_image=4096))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.zeros((1, 8, 9, 3), np.uint8), r"uint8 \(N, 8, 8, 3\), not uint8 \(1, 8, 9, 3\)"),
        (np.zeros((1, 8, 8, 3), np.float32), "not float32"),
        (np.zeros((1, 3), np.int32), "not int32"),
    ],
)
async def test_pixels_that_do_not_fit_fail_alone(started: Start, wrong: Stack, reason: str) -> None:
    replica, engine = await started()
    await check_that_it_fails_alone(replica.embed, STACK, wrong, reason)
    assert {stack.dtype for stack in engine.stacks} == {np.dtype(np.uint8)}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.ones((1, 0), np.int32), r"1 to 24\), not int32 \(1, 0\)"),
        (np.ones((1, 25), np.int32), r"not int32 \(1, 25\)"),
        (np.ones((1, 3), np.int64), "not int64"),
        (np.array([[1, 2], [-1, 2]], np.int32), "begin with a token"),
    ],
)
async def test_texts_that_do_not_fit_fail_alone(started: Start, wrong: Stack, reason: str) -> None:
    replica, engine = await started()
    await check_that_it_fails_alone(replica.embed_text, TOKENS, wrong, reason)
    assert sum(map(len, engine.stacks)) == 4


async def check_that_it_fails_alone(
    embed: Callable[..., Awaitable[StackVectors]], good: Stack, wrong: Stack, reason: str
) -> None:
    async with asyncio.timeout(10):
        first, refused, second = await asyncio.gather(
            *(embed(stack, CARD.identity) for stack in (good, wrong, good)),
            return_exceptions=True,
        )
    assert isinstance(refused, ValueError)
    with pytest.raises(ValueError, match=reason):
        raise refused
    assert isinstance(first, StackVectors)
    assert isinstance(second, StackVectors)


async def test_a_text_does_not_wait_for_the_images_of_others(started: Start) -> None:
    replica, engine = await started()
    images = [asyncio.create_task(replica.embed(STACK, CARD.identity)) for _ in range(64)]
    await asyncio.sleep(0)
    await replica.embed_text(TOKENS, CARD.identity)
    (number,) = (n for n, stack in enumerate(engine.stacks) if stack.ndim == 2)
    assert number < 3, "the text came after images that had come before it"
    await asyncio.gather(*images)
    assert len(engine.stacks) > 10


async def test_a_text_with_a_vector_for_each_token_has_those_of_its_own_stack(
    started: Start,
) -> None:
    replica, engine = await started()
    engine.several = True
    stacks = [np.ones((2, 3), np.int32), np.ones((1, 7), np.int32)]
    identity = CARD.identity
    made = await asyncio.gather(*(replica.embed_text(stack, identity) for stack in stacks))
    assert [m.vectors.shape for m in made] == [(2, 3, 12), (1, 7, 12)]


async def test_texts_for_a_model_without_a_text_tower_are_refused(started: Start) -> None:
    replica, _ = await started(None)
    with pytest.raises(ValueError, match="no text tower"):
        await replica.embed_text(TOKENS, CARD.identity)


@pytest.mark.parametrize("method", ["embed", "embed_text"])
async def test_a_model_that_fails_every_batch_is_replaced(started: Start, method: str) -> None:
    replica, engine = await started()
    stack = STACK if method == "embed" else TOKENS
    await getattr(replica, method)(stack, CARD.identity)
    await replica.check_health()
    engine.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        await getattr(replica, method)(stack, CARD.identity)
    await asyncio.sleep(0.05)
    with pytest.raises(EngineError, match="illegal"):
        await replica.check_health()
