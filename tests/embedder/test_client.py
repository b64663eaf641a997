"""What a call of the model deployment comes to, whatever happens to its replica."""

import asyncio
import dataclasses
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from tokenizers import Tokenizer, models

from deployments.embedder.client import MESSAGE_BYTES, READY_WITHIN_S, EmbedderClient
from deployments.errors import DeadlineExceeded, Internal, Overloaded, RaylensError, Unavailable
from deployments.wire import Pixels, StackVectors, WrongGeometryError
from tests.fakes import CARD, TEXT

OTHER_CARD = dataclasses.replace(CARD, id="earlier")
STACK = np.zeros((2, 8, 8, 3), np.uint8)
ANSWER = StackVectors(np.ones((2, 12), np.float32), 1.0, 2.0, CARD.identity)

DEATHS = [
    ActorDiedError(),
    ActorUnavailableError("the node is gone", None),
    AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "Socket closed"),
    RequestCancelledError("id"),
]

Script = Any
"""What a call comes to: a value to return, an error to raise, or something to await."""


class Method:
    """A method of the model deployment whose calls end as its script says, in order."""

    def __init__(self, script: list[Script]) -> None:
        self.script = script
        self.calls: list[tuple[Any, ...]] = []

    async def remote(self, *args: Any) -> Any:
        self.calls.append(args)
        outcome = self.script.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return await outcome if isinstance(outcome, Awaitable) else outcome


class Handle:
    """A deployment handle whose methods end as their scripts say."""

    def __init__(self, **scripts: tuple[Script, ...]) -> None:
        self.methods = {
            name: Method([*scripts.get(name, ())])
            for name in ("embed", "embed_text", "ready", "tokenizer")
        }
        self.by_reference: dict[str, bool] = {}

    def options(self, *, method_name: str, _by_reference: bool) -> Method:
        self.by_reference[method_name] = _by_reference
        return self.methods[method_name]


class SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting, puts the clock forward."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0 if timeout is not None else None)
        if not events and timeout:
            self.skipped_s += timeout
        return events


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on which no one waits: when nothing is left to do, the next timer is due."""

    def __init__(self) -> None:
        self._clock = SkippingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return super().time() + self._clock.skipped_s


def without_waiting(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def client(handle: Handle) -> EmbedderClient:
    return EmbedderClient(handle, names=frozenset({"fake"}), request_timeout_s=10)  # type: ignore[arg-type]


async def embed(
    opened: EmbedderClient, stack: Pixels = STACK, within_s: float = 10.0
) -> StackVectors:
    return await opened.embed(stack, asyncio.get_running_loop().time() + within_s, None)


async def failure(opened: EmbedderClient, within_s: float = 10.0) -> RaylensError:
    with pytest.raises(RaylensError) as caught:
        await embed(opened, within_s=within_s)
    return caught.value


async def after(seconds: float, outcome: Script) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def never() -> None:
    await asyncio.get_running_loop().create_future()


def named(error: object) -> str:
    return type(error).__name__


async def test_the_answer_is_passed_on_as_the_replica_gave_it() -> None:
    handle = Handle(embed=(ANSWER,))
    assert await embed(client(handle)) is ANSWER
    (arguments,) = handle.methods["embed"].calls
    assert arguments == (STACK, None)


def test_arrays_go_by_value_and_not_through_the_object_store() -> None:
    handle = Handle()
    client(handle)
    assert handle.by_reference == {
        "embed": False,
        "embed_text": False,
        "ready": False,
        "tokenizer": True,  # larger than gRPC takes, and asked for once
    }


def test_the_largest_stack_fits_into_one_message() -> None:
    largest = np.zeros((1, 1, EmbedderClient.stack_bytes, 1), np.uint8)
    arguments = cloudpickle.dumps(((largest,), {}))
    assert EmbedderClient.stack_bytes < len(arguments) < MESSAGE_BYTES


@pytest.mark.parametrize("death", DEATHS, ids=named)
async def test_a_call_whose_replica_died_is_repeated_with_another(death: Exception) -> None:
    handle = Handle(embed=(death, ANSWER))
    assert await embed(client(handle)) is ANSWER
    assert handle.methods["embed"].calls == [(STACK, None), (STACK, None)]


@pytest.mark.parametrize("death", DEATHS, ids=named)
async def test_a_call_that_loses_two_replicas_is_unavailable(death: Exception) -> None:
    handle = Handle(embed=(death, death, ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert len(handle.methods["embed"].calls) == 2
    assert str(death) not in str(error)


async def test_a_deployment_that_is_unavailable_is_not_asked_again() -> None:
    handle = Handle(embed=(DeploymentUnavailableError("id"), ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert len(handle.methods["embed"].calls) == 1


@pytest.mark.parametrize("deaths", [(), (ActorDiedError(),)], ids=["at once", "after a death"])
async def test_back_pressure_is_overload(deaths: tuple[Exception, ...]) -> None:
    handle = Handle(embed=(*deaths, BackPressureError(9, 8), ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 1
    assert len(handle.methods["embed"].calls) == len(deaths) + 1


@pytest.mark.parametrize(
    "bug", [ValueError("a secret"), KeyError("a secret"), RuntimeError("a secret")], ids=named
)
async def test_a_bug_in_the_model_is_internal_and_not_repeated(bug: Exception) -> None:
    handle = Handle(embed=(bug, ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Internal)
    assert "secret" not in str(error)
    assert len(handle.methods["embed"].calls) == 1


async def test_a_caller_who_leaves_is_neither_answered_nor_repeated() -> None:
    handle = Handle(embed=(never(), ANSWER))
    task = asyncio.create_task(embed(client(handle)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(handle.methods["embed"].calls) == 1


@without_waiting
async def test_no_answer_until_the_deadline_is_unavailable() -> None:
    began = asyncio.get_running_loop().time()
    error = await failure(client(Handle(embed=(never(),))), within_s=10)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)


@without_waiting
async def test_no_answer_while_others_are_answered_is_a_request_that_asks_too_much() -> None:
    opened = client(Handle(embed=(never(), after(1, ANSWER))))
    slow, quick = await asyncio.gather(
        embed(opened, within_s=10), embed(opened), return_exceptions=True
    )
    assert quick is ANSWER
    assert isinstance(slow, DeadlineExceeded)


@without_waiting
async def test_a_request_of_several_calls_asks_too_much_if_the_first_ones_were_answered() -> None:
    opened = client(Handle(embed=(after(4, ANSWER), never())))
    deadline = asyncio.get_running_loop().time() + 10
    await opened.embed(STACK, deadline, None)
    with pytest.raises(DeadlineExceeded):
        await opened.embed(STACK, deadline, None)


@without_waiting
async def test_after_the_death_of_a_second_replica_earlier_answers_show_nothing() -> None:
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
async def test_a_second_attempt_gets_the_time_that_the_first_one_left() -> None:
    began = asyncio.get_running_loop().time()
    error = await failure(client(Handle(embed=(after(9, ActorDiedError()), never()))), within_s=10)
    assert isinstance(error, Unavailable)
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)


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
async def test_being_ready_gives_the_card_of_the_model_that_answered_now() -> None:
    opened = client(Handle(ready=(OTHER_CARD, after(READY_WITHIN_S - 1, CARD))))
    await opened.wait_until_loaded()
    assert await opened.ready() is CARD
    assert opened.card is CARD


async def test_a_model_that_is_still_loading_is_not_waited_for() -> None:
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
async def test_not_being_ready_says_why_in_time(outcome: Callable[[], Script], reason: str) -> None:
    opened = client(Handle(ready=(CARD, outcome())))
    await opened.wait_until_loaded()
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as caught:
        await opened.ready()
    assert caught.value.message == f"The model {reason}."
    assert caught.value.retry_after_s == 5
    assert asyncio.get_running_loop().time() - began < READY_WITHIN_S + 0.1


@without_waiting
async def test_not_being_ready_is_said_before_a_short_request_is_over() -> None:
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
    await asyncio.sleep(READY_WITHIN_S - 1)
    call = asyncio.create_task(opened.ready())
    await asyncio.sleep(READY_WITHIN_S - 1)
    await embed(opened)
    assert await call is CARD
    assert await opened.ready() is CARD


@without_waiting
async def test_answers_from_before_a_death_do_not_make_a_dead_model_slow() -> None:
    opened = client(Handle(embed=(after(2, ActorDiedError()), ANSWER, never())))
    call = asyncio.create_task(failure(opened))
    await asyncio.sleep(1)
    await embed(opened)  # answered after the call began, but before the replica died
    assert type(await call) is Unavailable


JSON = Tokenizer(models.WordLevel({"cat": 0, "?": 1}, unk_token="?")).to_str()
TOKENIZER = (CARD.identity, JSON)
WITH_TEXT = dataclasses.replace(CARD, text=TEXT)


@without_waiting
async def test_a_model_with_text_is_loaded_once_its_tokenizer_is_there_as_well() -> None:
    others = (b"of an older version", Tokenizer(models.WordLevel({"?": 9}, unk_token="?")).to_str())
    handle = Handle(ready=(WITH_TEXT,) * 3, tokenizer=(ActorDiedError(), others, TOKENIZER))
    opened = client(handle)
    with pytest.raises(Unavailable):
        opened.tokenizer  # noqa: B018
    await opened.wait_until_loaded()
    assert opened.card == WITH_TEXT
    assert [encoded.ids for encoded in opened.tokenizer.encode(["cat"])] == [[0]]
    assert len(handle.methods["tokenizer"].calls) == 3


@pytest.mark.parametrize("told_by", ["an answer", "being ready"])
@without_waiting
async def test_another_version_of_the_model_brings_its_card_and_tokenizer(told_by: str) -> None:
    newer = dataclasses.replace(WITH_TEXT, identity=b"newer")
    asked = (newer,) if told_by == "being ready" else ()
    handle = Handle(
        ready=(WITH_TEXT, *asked, ActorDiedError(), newer),
        tokenizer=(TOKENIZER, (b"newer", JSON)),
        embed=(ANSWER._replace(identity=b"newer"),) * 2,
    )
    opened = client(handle)
    await opened.wait_until_loaded()
    if told_by == "being ready":
        assert await opened.ready() is newer
    else:
        await embed(opened)
    await asyncio.sleep(1)  # that failed, and left the card and the tokenizer as they were
    assert opened.card is WITH_TEXT
    await embed(opened)
    await asyncio.sleep(1)
    assert opened.card is newer
    assert len(handle.methods["tokenizer"].calls) == 2


@without_waiting
async def test_a_model_of_another_geometry_is_one_that_replaces_this_one() -> None:
    newer = dataclasses.replace(CARD, identity=b"newer")
    handle = Handle(ready=(CARD, newer), embed=(WrongGeometryError(b"newer"),))
    opened = client(handle)
    await opened.wait_until_loaded()
    with pytest.raises(Unavailable, match="replaced") as caught:
        await embed(opened)
    assert caught.value.retry_after_s == 1
    await asyncio.sleep(1)
    assert opened.card is newer


def test_the_error_of_another_geometry_survives_the_way_through_ray() -> None:
    remote = RayTaskError("embed", "Traceback …", WrongGeometryError(b"newer"))
    error = cloudpickle.loads(cloudpickle.dumps(remote)).as_instanceof_cause()
    assert isinstance(error, WrongGeometryError)
    assert error.identity == b"newer"


async def test_texts_go_to_the_models_text_method_with_the_same_care() -> None:
    tokens = np.ones((2, 5), np.int32)
    handle = Handle(embed_text=(DEATHS[0], ANSWER))
    deadline = asyncio.get_running_loop().time() + 10
    assert await client(handle).embed_text(tokens, deadline, None) is ANSWER
    calls = handle.methods["embed_text"].calls
    assert [arguments[0] is tokens for arguments in calls] == [True, True]
