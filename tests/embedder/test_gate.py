"""Stacks of several callers become full batches, and one caller's failure is not another's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from deployments.embedder.gate import Gate
from deployments.wire import QueueState, Stack, Vectors


def images(*values: int) -> Stack:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


class FakeModel:
    """An image's vector is the image's one value; a batch lasts until it is released."""

    def __init__(self) -> None:
        self.running: list[list[int]] = []
        self.batches: list[list[int]] = []
        self.release = asyncio.Event()
        self.fail_on: int | None = None
        self._turn: list[Stack] = []

    async def __call__(self, piece: Stack) -> Vectors:
        """Merges the pieces of one turn of the event loop, as `@serve.batch` does."""
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._cut)
        self._turn.append(piece)
        await self.release.wait()
        if self.fail_on in piece:
            raise ValueError("boom")
        return piece.reshape(-1, 1).astype(np.float32)

    def _cut(self) -> None:
        self.batches.append([int(v) for piece in self._turn for v in piece.ravel()])
        self._turn = []


@asynccontextmanager
async def gate(
    run: Callable[[Stack], Awaitable[Vectors]], *, lanes: int = 1, size: int = 4
) -> AsyncIterator[Gate]:
    opened = Gate(run, lanes=lanes, max_batch_size=size, linger_s=0)
    try:
        yield opened
    finally:
        end_lanes(opened)


def end_lanes(opened: Gate) -> None:
    for lane in opened._lanes:
        lane.cancel()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_stacks_that_wait_for_the_model_leave_as_one_full_batch() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        first = asyncio.create_task(opened.submit(images(0)))
        await turns()
        rest = [asyncio.create_task(opened.submit(images(i))) for i in range(1, 6)]
        await turns()
        assert model.batches == [[0]]
        model.release.set()
        answers = await asyncio.gather(first, *rest)
    assert model.batches == [[0], [1, 2, 3, 4], [5]]
    assert [float(a.vectors[0, 0]) for a in answers] == [0, 1, 2, 3, 4, 5]


async def test_a_stack_is_cut_where_the_batch_ends_and_put_together_in_order() -> None:
    model = FakeModel()
    model.release.set()
    async with gate(model) as opened:
        answers = await asyncio.gather(
            opened.submit(images(*range(6))), opened.submit(images(*range(10, 15)))
        )
    assert model.batches == [[0, 1, 2, 3], [4, 5, 10, 11], [12, 13, 14]]
    assert answers[0].vectors.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert answers[1].vectors.ravel().tolist() == [10, 11, 12, 13, 14]


async def test_two_lanes_run_two_batches_at_once() -> None:
    model = FakeModel()
    async with gate(model, lanes=2) as opened:
        tasks = [asyncio.create_task(opened.submit(images(*[i] * 4))) for i in range(3)]
        await turns()
        assert sum(len(batch) for batch in model.batches) == 8
        model.release.set()
        await asyncio.gather(*tasks)
    assert sum(len(batch) for batch in model.batches) == 12


async def test_a_caller_who_leaves_while_waiting_takes_no_place_in_a_batch() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        first = asyncio.create_task(opened.submit(images(0)))
        await turns()
        leaver = asyncio.create_task(opened.submit(images(1)))
        stayer = asyncio.create_task(opened.submit(images(2)))
        await turns()
        leaver.cancel()
        model.release.set()
        await asyncio.gather(first, stayer)
    assert model.batches == [[0], [2]]


async def test_a_failed_batch_fails_its_callers_and_no_others() -> None:
    model = FakeModel()
    model.fail_on = 1
    async with gate(model, size=1) as opened:
        model.release.set()
        answers = await asyncio.gather(
            *(opened.submit(images(i)) for i in range(3)), return_exceptions=True
        )
        opened.check()
    assert isinstance(answers[1], ValueError)
    assert [float(answers[i].vectors[0, 0]) for i in (0, 2)] == [0, 2]  # type: ignore[union-attr]


async def test_stacks_much_larger_than_a_batch_are_answered_beside_others() -> None:
    model = FakeModel()
    model.release.set()
    sizes = [1, 5, 1, 100, 4, 3, 8]
    async with gate(model, lanes=2) as opened:
        answers = await asyncio.gather(*(opened.submit(images(*range(size))) for size in sizes))
    assert [answer.vectors.ravel().tolist() for answer in answers] == [[*range(n)] for n in sizes]


@pytest.mark.parametrize("stack", [images(), np.uint8(1), None])
async def test_a_stack_without_a_length_or_items_is_refused_and_stops_no_lane(stack: Any) -> None:
    model = FakeModel()
    model.release.set()
    async with gate(model) as opened:
        for _ in range(2):
            with pytest.raises((TypeError, ValueError)):
                await asyncio.wait_for(opened.submit(stack), timeout=5)
            opened.check()
            await opened.submit(images(1))


async def test_a_smaller_batch_size_applies_from_the_next_batch_on() -> None:
    model = FakeModel()
    model.release.set()
    async with gate(model) as opened:
        opened.max_batch_size = 2
        await opened.submit(images(*range(5)))
    assert model.batches == [[0, 1], [2, 3], [4]]


async def test_an_ended_lane_is_noticed() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        end_lanes(opened)
        await turns()
        with pytest.raises(RuntimeError, match="lane"):
            opened.check()


async def test_a_single_item_overtakes_a_large_stack_that_came_shortly_before_it() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        first = asyncio.create_task(opened.submit(images(0)))  # teaches the gate the model's pace
        await asyncio.sleep(0.05)
        model.release.set()
        await first
        model.release.clear()
        large = asyncio.create_task(opened.submit(images(*range(10, 30))))
        await turns()
        alone = asyncio.create_task(opened.submit(images(1)))
        await turns()
        model.release.set()
        await asyncio.gather(large, alone)
    assert model.batches[1] == [10, 11, 12, 13]
    assert model.batches[2] == [1, 14, 15, 16]


async def test_a_large_stack_that_has_waited_its_time_is_no_longer_overtaken() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        first = asyncio.create_task(opened.submit(images(0)))
        await asyncio.sleep(0.01)
        model.release.set()
        await first
        model.release.clear()
        running = asyncio.create_task(opened.submit(images(0)))
        await turns()
        large = asyncio.create_task(opened.submit(images(10, 11, 12, 13)))
        await asyncio.sleep(0.1)  # more than the 4 times 2 ms that it would take
        late = asyncio.create_task(opened.submit(images(1)))
        await turns()
        model.release.set()
        await asyncio.gather(running, large, late)
    assert model.batches[2:] == [[10, 11, 12, 13], [1]]


async def test_tenants_share_each_batch_and_fill_it() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        running = asyncio.create_task(opened.submit(images(0)))
        await turns()
        greedy = [asyncio.create_task(opened.submit(images(*[i] * 4), "a")) for i in (1, 2, 3)]
        await turns()
        other = [asyncio.create_task(opened.submit(images(i), "b")) for i in (7, 8, 9)]
        await turns()
        model.release.set()
        await asyncio.gather(running, *greedy, *other)
    assert [sorted(batch) for batch in model.batches] == [
        [0], [1, 1, 7, 8], [1, 1, 2, 9], [2, 2, 2, 3], [3, 3, 3]
    ]  # fmt: skip


async def test_the_state_tells_what_waits_and_how_long_full_batches_take() -> None:
    model = FakeModel()
    async with gate(model, lanes=2) as opened:
        assert opened.state() == QueueState(waiting=0, item_s=0)
        tasks = [asyncio.create_task(opened.submit(images(*range(4)))) for _ in range(2)]
        await turns()
        assert opened.state().waiting == 8
        await asyncio.sleep(0.1)
        model.release.set()
        for task in tasks:
            await task
        assert opened.state().waiting == 0  # at once, as those who have just been answered ask
        await turns()
        state = opened.state()
        one = asyncio.create_task(opened.submit(images(1)))
        await asyncio.sleep(0.2)
        await one
    assert 0.1 / 4 / 2 <= state.item_s < 0.1  # about 0.0125 where nothing else runs
    assert opened.state().item_s == state.item_s  # which a batch of one does not change


async def test_it_tells_what_has_been_asked_of_it_as_if_batches_were_full() -> None:
    async def run(piece: Stack) -> Vectors:
        await asyncio.sleep(0.01)
        return piece.reshape(-1, 1).astype(np.float32)

    async with gate(run, size=4) as opened:
        assert opened.work() == (0, 0, 0, 0)
        await opened.submit(images(1, 2))
        await asyncio.sleep(0.02)  # its lane has noted the batch by then
        first = opened.work()
        assert first.accepted_s == 0  # nobody knew yet what it would take
        assert first.batch_s >= 0.02  # two of two
        waiting = [asyncio.create_task(opened.submit(images(1, 2), refused=3)) for _ in range(2)]
        await asyncio.sleep(0)
        assert opened.work().backlog_s == pytest.approx(first.batch_s)
        assert opened.work().accepted_s == pytest.approx(first.batch_s)
        assert opened.work().refused_s == pytest.approx(1.5 * first.batch_s)
        await asyncio.gather(*waiting)
        assert opened.work().backlog_s == 0


async def test_batches_that_fail_tell_nothing_of_how_fast_the_model_is() -> None:
    model = FakeModel()
    async with gate(model) as opened:
        first = asyncio.create_task(opened.submit(images(1, 2, 3, 4)))
        await turns()
        await asyncio.sleep(0.05)
        model.release.set()
        await first
        await turns()
        known = opened.work().batch_s, opened.state().item_s
        model.fail_on = 7
        for _ in range(20):
            with pytest.raises(ValueError, match="boom"):
                await opened.submit(images(7, 7, 7, 7))
        assert (opened.work().batch_s, opened.state().item_s) == known
