"""The client waits until the model is loaded, and calls it ready only when it answers."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from deployments.embedder.client import READY_TIMEOUT_S, EmbedderClient
from deployments.errors import Unavailable
from tests.embedder.clocks import without_waiting
from tests.embedder.handles import ANSWER, Handle, Script, after, client, embed, never
from tests.fakes import CARD

OTHER_CARD = dataclasses.replace(CARD, id="earlier")


async def test_there_is_no_card_before_the_model_is_loaded() -> None:
    with pytest.raises(Unavailable, match="still being loaded") as caught:
        _ = client(Handle()).card
    assert caught.value.retry_after_s == 5


@without_waiting
async def test_waiting_for_the_model_survives_failures_and_ends_with_its_card() -> None:
    handle = Handle(ready=(ActorDiedError(), ValueError("boom"), after(600, CARD)))
    opened = client(handle)
    await opened.wait_until_loaded()
    assert opened.card is CARD
    assert len(handle.methods["ready"].calls) == 3


@without_waiting
async def test_ready_returns_the_card_of_the_model_that_answers_now() -> None:
    opened = client(Handle(ready=(OTHER_CARD, after(READY_TIMEOUT_S - 1, CARD))))
    await opened.wait_until_loaded()
    assert await opened.ready() is CARD
    assert opened.card is CARD


async def test_ready_does_not_wait_for_a_model_that_is_still_loading() -> None:
    handle = Handle(ready=(CARD,))
    with pytest.raises(Unavailable, match="still being loaded"):
        await client(handle).ready()
    assert not handle.methods["ready"].calls


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (never, "does not answer"),
        (lambda: ValueError("a secret"), "fails"),
        (ActorDiedError, "fails"),
    ],
    ids=["stuck", "broken", "dead"],
)
@without_waiting
async def test_an_unready_model_says_why_in_time(
    outcome: Callable[[], Script], reason: str
) -> None:
    opened = client(Handle(ready=(CARD, outcome())))
    await opened.wait_until_loaded()
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as caught:
        await opened.ready()
    assert caught.value.message == f"The model {reason}."
    assert caught.value.retry_after_s == 5
    assert asyncio.get_running_loop().time() - began < READY_TIMEOUT_S + 0.1


@without_waiting
async def test_an_unready_model_is_reported_before_a_short_request_times_out() -> None:
    handle: Any = Handle(ready=(CARD, never()))
    opened = EmbedderClient(handle, names=frozenset({"fake"}), request_timeout_s=2)
    await opened.wait_until_loaded()
    async with asyncio.timeout(1.9):
        with pytest.raises(Unavailable):
            await opened.ready()


@without_waiting
async def test_a_model_that_is_busy_but_answers_others_is_ready() -> None:
    opened = client(Handle(embed=(ANSWER,), ready=(CARD, never(), BackPressureError(1, 1))))
    await opened.wait_until_loaded()
    await asyncio.sleep(READY_TIMEOUT_S - 1)
    call = asyncio.create_task(opened.ready())
    await asyncio.sleep(READY_TIMEOUT_S - 1)
    await embed(opened)
    assert await call is CARD
    assert await opened.ready() is CARD


@without_waiting
async def test_whoever_waits_less_hears_in_that_time_whether_the_model_is_busy_or_stuck() -> None:
    opened = client(Handle(embed=(ANSWER,), ready=(CARD, never(), never())))
    await opened.wait_until_loaded()
    async with asyncio.timeout(0.5):
        with pytest.raises(Unavailable, match="does not answer"):
            await opened.ready(0.4)
    await embed(opened)
    async with asyncio.timeout(0.5):
        assert await opened.ready(0.4) is CARD
