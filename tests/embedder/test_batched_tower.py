"""New batch sizes while stacks are on their way through the gate and Serve's own `@serve.batch`."""

import asyncio

import numpy as np
import pytest

from deployments.embedder.deployment import BatchedTower
from deployments.metrics.declared import EmbedderMetrics
from deployments.wire import Stack, Vectors

pytestmark = pytest.mark.usefixtures("replica")

TURNS = range(12)
"""More than a piece needs to get from the gate into a batch."""


class Model:
    """An item's vector is the item's one value; remembers the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def __call__(self, pieces: list[Stack]) -> list[Vectors]:
        self.batches.append(sum(len(piece) for piece in pieces))
        await asyncio.sleep(0.001)
        return [piece.reshape(-1, 1).astype(np.float32) for piece in pieces]


def tower(model: Model, *, size: int, lanes: int = 1) -> BatchedTower:
    return BatchedTower(
        "image", model, metrics=EmbedderMetrics(), lanes=lanes, max_batch_size=size, linger_s=0
    )


def images(number: int) -> Stack:
    return np.arange(number, dtype=np.uint8).reshape(-1, 1, 1, 1)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("after", TURNS)
async def test_a_smaller_size_fails_no_stack_that_was_cut_for_a_larger_one(
    after: int, lanes: int
) -> None:
    model = Model()
    opened = tower(model, size=8, lanes=lanes)
    tasks = [asyncio.create_task(opened.gate.submit(images(5))) for _ in range(6)]
    await turns(after)
    before = len(model.batches)
    opened.reconfigure(max_batch_size=2, linger_s=0)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*tasks)
    assert all(answer.vectors.ravel().tolist() == [0, 1, 2, 3, 4] for answer in answers)
    cut_before = before + 3 * lanes  # so many pieces may have been on their way
    assert max(model.batches[cut_before:]) == 2


@pytest.mark.parametrize("after", TURNS)
async def test_callers_who_leave_during_a_change_of_size_stop_nobody_else(after: int) -> None:
    opened = tower(Model(), size=8)
    leaving = [asyncio.create_task(opened.gate.submit(images(8))) for _ in range(3)]
    await turns(after)
    for task in leaving:
        task.cancel()
    opened.reconfigure(max_batch_size=1, linger_s=0)
    async with asyncio.timeout(5):
        answer = await opened.gate.submit(images(3))
    assert answer.vectors.ravel().tolist() == [0, 1, 2]


async def test_a_larger_size_applies_from_the_next_batch_on() -> None:
    model = Model()
    opened = tower(model, size=1)
    task = asyncio.create_task(opened.gate.submit(images(9)))
    await turns(3)
    opened.reconfigure(max_batch_size=8, linger_s=0)
    await task
    assert model.batches == [1, 8]


async def test_the_end_of_serves_batch_loop_is_noticed() -> None:
    """As in Ray's issue 66140; every later request would wait until its time is up."""
    opened = tower(Model(), size=4)
    await opened.check()
    (loop,) = (t for t in asyncio.all_tasks() if "_process_batches" in repr(t.get_coro()))
    loop.cancel()
    await asyncio.wait([loop])
    with pytest.raises(RuntimeError, match="has ended"):
        await opened.check()
