"""No answer in time means a slow request if the model is alive, and otherwise a dead model."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError

from deployments.errors import DeadlineExceeded, Internal, Unavailable
from tests.embedder.clocks import without_waiting
from tests.embedder.handles import ANSWER, STACK, Handle, after, client, embed, failure, never
from tests.fakes import CARD


@without_waiting
async def test_no_answer_by_the_deadline_is_unavailable() -> None:
    began = asyncio.get_running_loop().time()
    error = await failure(client(Handle(embed=(never(),))), within_s=10)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)


@without_waiting
async def test_no_answer_while_others_are_answered_is_an_exceeded_deadline() -> None:
    opened = client(Handle(embed=(never(), after(1, ANSWER))))
    slow, quick = await asyncio.gather(
        embed(opened, within_s=10), embed(opened), return_exceptions=True
    )
    assert quick is ANSWER
    assert isinstance(slow, DeadlineExceeded)


@without_waiting
async def test_a_request_whose_earlier_calls_were_answered_exceeds_its_deadline() -> None:
    opened = client(Handle(embed=(after(4, ANSWER), never())))
    deadline = asyncio.get_running_loop().time() + 10
    await opened.embed(STACK, CARD.identity, deadline, None)
    with pytest.raises(DeadlineExceeded):
        await opened.embed(STACK, CARD.identity, deadline, None)


@without_waiting
async def test_answers_from_before_a_second_death_do_not_show_that_the_model_lives() -> None:
    deaths = (after(5, ActorDiedError()), after(2, ActorDiedError()))
    opened = client(Handle(embed=(never(), deaths[0], after(6, ANSWER), deaths[1])))
    waiting, *_ = await asyncio.gather(*(embed(opened) for _ in range(3)), return_exceptions=True)
    assert isinstance(waiting, Unavailable)


@without_waiting
async def test_an_answer_from_before_the_call_does_not_show_that_the_model_lives() -> None:
    opened = client(Handle(embed=(ANSWER, never())))
    await embed(opened)
    await asyncio.sleep(1)
    assert isinstance(await failure(opened), Unavailable)


@without_waiting
async def test_a_failure_of_another_call_does_not_show_that_the_model_lives() -> None:
    opened = client(Handle(embed=(never(), after(1, ValueError()))))
    slow, broken = await asyncio.gather(embed(opened), embed(opened), return_exceptions=True)
    assert isinstance(broken, Internal)
    assert isinstance(slow, Unavailable)


@without_waiting
async def test_a_second_attempt_gets_only_the_time_that_the_first_one_left() -> None:
    began = asyncio.get_running_loop().time()
    error = await failure(client(Handle(embed=(after(9, ActorDiedError()), never()))), within_s=10)
    assert isinstance(error, Unavailable)
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)


@without_waiting
async def test_answers_from_before_a_death_do_not_make_a_dead_model_look_slow() -> None:
    opened = client(Handle(embed=(after(2, ActorDiedError()), ANSWER, never())))
    call = asyncio.create_task(failure(opened))
    await asyncio.sleep(1)
    await embed(opened)  # answered after the call began, but before the replica died
    assert type(await call) is Unavailable
