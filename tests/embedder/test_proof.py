"""A model counts as working by its last batch, and is tested when that failed or is not finite."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from deployments.embedder.proof import RECENT_S, Proof
from deployments.models.engines.engine import EngineError
from deployments.wire import NoMemoryError, Vectors
from tests.embedder.clocks import without_waiting

GOOD = np.ones((3, 4), np.float32)
BAD = np.full((3, 4), np.nan, np.float32)
MIXED = np.concatenate([BAD, GOOD])


class Model:
    """Passes its test unless it has an error."""

    def __init__(self) -> None:
        self.tests = 0
        self.error: Exception | None = None

    async def prove(self) -> None:
        self.tests += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error


@pytest.fixture
def model() -> Model:
    return Model()


async def batch(outcome: Vectors | Exception) -> Vectors:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def settled() -> None:
    await asyncio.sleep(0.05)


async def test_a_model_whose_vectors_are_never_finite_fails_its_test_and_its_health_check(
    model: Model,
) -> None:
    proof = Proof(model.prove)
    await proof.judge(batch(GOOD))
    model.error = EngineError("gives vectors that are not finite")
    await proof.judge(batch(BAD))
    proof.check()  # not before the test
    await settled()
    with pytest.raises(EngineError, match="not finite"):
        proof.check()
    with pytest.raises(EngineError, match="not finite"):
        await proof.ready()


@pytest.mark.parametrize("vectors", [GOOD, MIXED, np.where(MIXED > 0, 1, np.inf)])
async def test_a_batch_with_any_finite_vector_is_a_success(
    model: Model, vectors: np.ndarray
) -> None:
    proof = Proof(model.prove)
    await proof.judge(batch(vectors))
    await proof.ready()
    proof.check()
    assert model.tests == 0


async def test_images_that_no_model_can_embed_cost_a_test_and_not_the_replica(
    model: Model,
) -> None:
    proof = Proof(model.prove)
    for _ in range(5):
        await proof.judge(batch(BAD))
    await settled()
    proof.check()
    assert model.tests == 1
    await proof.ready()


async def test_a_success_after_a_failed_test_counts(model: Model) -> None:
    proof = Proof(model.prove)
    model.error = EngineError("wrong vectors")
    with pytest.raises(EngineError):
        await proof.ready()
    await proof.judge(batch(GOOD))
    proof.check()


@pytest.mark.parametrize("error", [MemoryError("of this machine"), NoMemoryError("of the GPU")])
async def test_a_test_that_could_not_run_says_nothing_about_health_but_is_logged(
    model: Model, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    proof = Proof(model.prove)
    model.error = error
    await proof.judge(batch(BAD))
    await settled()
    proof.check()
    assert f"could not be tested: {type(error).__name__}: {error}" in caplog.text
    with pytest.raises(type(error)):
        await proof.ready()


async def test_a_model_that_fails_every_batch_and_its_test_fails_its_health_check(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """As torch does after an error of CUDA that stays, and OpenVINO after some of its own."""
    proof = Proof(model.prove)
    assert await proof.judge(batch(GOOD)) is GOOD
    model.error = RuntimeError("an illegal memory access\nCUDA kernel errors might be reported")
    with pytest.raises(RuntimeError, match="in the batch"):
        await proof.judge(batch(RuntimeError("in the batch")))
    await settled()
    sentence = r"^RuntimeError: an illegal memory access$"
    with pytest.raises(EngineError, match=sentence):
        proof.check()
    with pytest.raises(EngineError, match=sentence):
        await proof.ready()
    assert "fails its own test: RuntimeError: an illegal memory access." in caplog.text


async def test_a_batch_that_fails_alone_costs_a_test_and_not_the_replica(model: Model) -> None:
    proof = Proof(model.prove)
    for _ in range(5):
        with pytest.raises(RuntimeError):
            await proof.judge(batch(RuntimeError("once")))
    await settled()
    proof.check()
    assert model.tests == 1


@pytest.mark.parametrize("error", [ValueError("another shape"), NoMemoryError("of the GPU")])
async def test_a_batch_that_is_refused_says_nothing_about_the_model(
    model: Model, error: Exception
) -> None:
    proof = Proof(model.prove)
    await proof.judge(batch(GOOD))
    with pytest.raises(type(error)):
        await proof.judge(batch(error))
    await proof.ready()
    assert model.tests == 0


@without_waiting
async def test_the_model_is_tested_only_without_a_recent_success(model: Model) -> None:
    proof = Proof(model.prove)
    await proof.ready()
    await asyncio.sleep(RECENT_S - 1)
    await proof.ready()
    assert model.tests == 1
    await asyncio.sleep(2)
    await asyncio.gather(proof.ready(), proof.ready())
    assert model.tests == 2


async def test_a_health_check_that_gives_up_leaves_the_test_to_the_next_one() -> None:
    release = asyncio.Event()
    prove: Callable[[], Awaitable[object]] = release.wait
    proof = Proof(prove)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(proof.ready(), 0.01)
    waiting = asyncio.create_task(proof.ready())
    await asyncio.sleep(0)
    release.set()
    await waiting
