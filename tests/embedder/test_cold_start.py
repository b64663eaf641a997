"""A model without replicas: what its first callers get, and what does not wake it up."""

import asyncio
from typing import Literal

import pytest

from deployments.embedder.client import EmbedderClient
from deployments.embedder.cold_start import START_LIMIT_S, START_S, ColdStart
from deployments.errors import Unavailable
from tests.embedder.clocks import without_waiting
from tests.embedder.handles import ANSWER, Handle, after, embed, never
from tests.fakes import CARD


class Replicas:
    """Tells how many there are."""

    def __init__(self) -> None:
        self.number: int | None = 1

    def __call__(self) -> int | None:
        return self.number


async def asleep(
    handle: Handle, cold_start: Literal["none", "wait", "refuse"]
) -> tuple[EmbedderClient, Replicas]:
    """A client that knows the model's card, and whose model has no replicas now."""
    replicas = Replicas()
    opened = EmbedderClient(
        handle,
        names=frozenset({"fake"}),
        request_timeout_s=10,
        cold_start=ColdStart(cold_start, replicas),
    )
    await opened.wait_until_loaded()
    replicas.number = 0
    return opened, replicas


@pytest.mark.parametrize("cold_start", ["wait", "refuse"])
async def test_health_checks_do_not_wake_a_model_up(cold_start: Literal["wait", "refuse"]) -> None:
    handle = Handle(ready=(CARD,))
    opened, _ = await asleep(handle, cold_start)
    assert await opened.ready() is CARD
    assert len(handle.methods["ready"].calls) == 1


async def test_a_model_that_may_not_sleep_is_not_ready_without_replicas() -> None:
    opened, _ = await asleep(Handle(ready=(CARD, Exception("no replica"))), "none")
    with pytest.raises(Unavailable, match="fails"):
        await opened.ready()


@without_waiting
async def test_the_first_caller_waits_for_a_replica() -> None:
    opened, _ = await asleep(Handle(ready=(CARD,), embed=(after(6, ANSWER),)), "wait")
    assert opened.refusal() is None
    assert (await embed(opened)).vectors is ANSWER.vectors


@without_waiting
async def test_a_model_whose_callers_wait_is_woken_up_by_calls_alone() -> None:
    handle = Handle(ready=(CARD,))
    opened, _ = await asleep(handle, "wait")
    assert opened.refusal() is None  # asked before a body is read, which may be bad
    await asyncio.sleep(1)
    assert len(handle.methods["ready"].calls) == 1


@without_waiting
async def test_a_model_that_answers_after_a_failed_start_may_sleep_again() -> None:
    handle = Handle(ready=(CARD, Exception("no node")), embed=(after(6, ANSWER),))
    opened, _ = await asleep(handle, "wait")
    await embed(opened)
    assert await opened.ready() is CARD  # known, and not asked


@without_waiting
async def test_a_caller_waits_no_longer_than_a_request_may() -> None:
    opened, _ = await asleep(Handle(ready=(CARD,), embed=(never(),)), "wait")
    with pytest.raises(Unavailable) as caught:
        await embed(opened)
    assert caught.value.retry_after_s


@without_waiting
async def test_the_first_caller_is_told_when_to_come_back_and_wakes_it_up_once() -> None:
    handle = Handle(ready=(CARD, after(5.9, CARD), CARD), embed=(ANSWER,))
    opened, replicas = await asleep(handle, "refuse")
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await embed(opened)
        assert caught.value.retry_after_s == START_S
        await asyncio.sleep(0)
    assert len(handle.methods["ready"].calls) == 2
    assert not handle.methods["embed"].calls
    replicas.number = 1
    assert (await embed(opened)).vectors is ANSWER.vectors
    await asyncio.sleep(10)
    replicas.number = 0
    assert getattr(opened.refusal(), "retry_after_s", None) == 6  # as long as it took


@without_waiting
async def test_a_start_that_fails_is_tried_again() -> None:
    handle = Handle(ready=(CARD, Exception("no node"), CARD))
    opened, _ = await asleep(handle, "refuse")
    for _ in range(2):
        assert isinstance(opened.refusal(), Unavailable)
        await asyncio.sleep(1)
    assert len(handle.methods["ready"].calls) == 3


@without_waiting
@pytest.mark.parametrize("cold_start", ["wait", "refuse"])
@pytest.mark.parametrize("hangs", [False, True])
async def test_a_model_that_cannot_be_started_is_not_ready_until_it_works_again(
    cold_start: Literal["wait", "refuse"], hangs: bool
) -> None:
    failure = Exception("no node")
    handle = Handle(
        ready=(CARD, never() if hangs else failure, failure, failure, CARD),
        embed=(never(), never()) if cold_start == "wait" else (),
    )
    opened, _ = await asleep(handle, cold_start)
    with pytest.raises(Unavailable):
        await embed(opened)  # wakes it up
    await asyncio.sleep(START_LIMIT_S + 1)
    with pytest.raises(Unavailable, match="fails"):
        await opened.ready()
    with pytest.raises(Unavailable) as caught:
        await embed(opened)  # tries again
    assert ("has not started yet" in str(caught.value)) == (cold_start == "refuse")
    await asyncio.sleep(1)
    for _ in range(2):  # the second time, it is asleep and not asked
        assert await opened.ready() is CARD
    assert not handle.methods["ready"].script


async def test_while_the_number_of_replicas_is_unknown_the_model_is_not_asleep() -> None:
    opened, replicas = await asleep(Handle(ready=(CARD,)), "refuse")
    replicas.number = None
    assert opened.refusal() is None


async def test_refused_items_go_along_with_the_next_call_once() -> None:
    handle = Handle(ready=(CARD,), embed=(ANSWER, ANSWER))
    opened, _ = await asleep(handle, "none")
    opened.refused(3)
    opened.refused(0.5)
    await embed(opened)
    await embed(opened)
    assert [call[3:] for call in handle.methods["embed"].calls] == [(3.5,), ()]
