"""How a call to the model deployment ends, whatever happens to its replica."""

import asyncio
import pickle

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.embedder.client import EmbedderClient
from deployments.embedder.messages import MESSAGE_BYTES
from deployments.errors import Internal, Overloaded, Unavailable
from deployments.wire import NoMemoryError
from tests.embedder.handles import (
    ANSWER,
    DEATHS,
    STACK,
    Handle,
    client,
    embed,
    failure,
    named,
    never,
)
from tests.fakes import CARD


async def test_the_answer_is_passed_on_as_the_replica_gave_it() -> None:
    handle = Handle(embed=(ANSWER,))
    assert await embed(client(handle)) is ANSWER
    (arguments,) = handle.methods["embed"].calls
    assert arguments == (STACK, CARD.identity, None)


def test_arrays_go_by_value_and_not_through_the_object_store() -> None:
    handle = Handle()
    client(handle)
    assert handle.by_reference == {
        "embed": False,
        "embed_text": False,
        "ready": False,
        "tokenizer": True,  # larger than gRPC allows, and asked for only once
    }


def test_the_largest_stack_fits_into_one_message() -> None:
    largest = np.zeros((1, 1, EmbedderClient.stack_bytes, 1), np.uint8)
    arguments = pickle.dumps(((largest,), {}))
    assert EmbedderClient.stack_bytes < len(arguments) < MESSAGE_BYTES


@pytest.mark.parametrize("death", DEATHS, ids=named)
async def test_a_call_whose_replica_died_is_retried_on_another(death: Exception) -> None:
    handle = Handle(embed=(death, ANSWER))
    assert await embed(client(handle)) is ANSWER
    assert handle.methods["embed"].calls == [(STACK, CARD.identity, None)] * 2


@pytest.mark.parametrize("death", DEATHS, ids=named)
async def test_a_call_that_loses_two_replicas_is_unavailable(death: Exception) -> None:
    handle = Handle(embed=(death, death, ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert len(handle.methods["embed"].calls) == 2
    assert str(death) not in str(error)


async def test_a_call_to_an_unavailable_deployment_is_not_retried() -> None:
    handle = Handle(embed=(DeploymentUnavailableError("id"), ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert len(handle.methods["embed"].calls) == 1


@pytest.mark.parametrize("deaths", [(), (ActorDiedError(),)], ids=["at once", "after a death"])
async def test_back_pressure_is_reported_as_overload(deaths: tuple[Exception, ...]) -> None:
    handle = Handle(embed=(*deaths, BackPressureError(9, 8), ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 1
    assert len(handle.methods["embed"].calls) == len(deaths) + 1


@pytest.mark.parametrize(
    "bug", [ValueError("a secret"), KeyError("a secret"), RuntimeError("a secret")], ids=named
)
async def test_a_bug_in_the_model_is_an_internal_error_and_not_retried(bug: Exception) -> None:
    handle = Handle(embed=(bug, ANSWER))
    error = await failure(client(handle))
    assert isinstance(error, Internal)
    assert "secret" not in str(error)
    assert len(handle.methods["embed"].calls) == 1


async def test_a_model_without_memory_is_unavailable_for_a_while() -> None:
    remote = RayTaskError("embed", "Traceback …", NoMemoryError("no memory for a batch of 1"))
    handle = Handle(embed=(pickle.loads(pickle.dumps(remote)).as_instanceof_cause(),))
    error = await failure(client(handle))
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 5
    assert len(handle.methods["embed"].calls) == 1


async def test_a_call_whose_caller_leaves_is_cancelled_and_not_retried() -> None:
    handle = Handle(embed=(never(), ANSWER))
    task = asyncio.create_task(embed(client(handle)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(handle.methods["embed"].calls) == 1


async def test_a_call_for_texts_is_retried_after_a_death_as_well() -> None:
    tokens = np.ones((2, 5), np.int32)
    handle = Handle(embed_text=(DEATHS[0], ANSWER))
    deadline = asyncio.get_running_loop().time() + 10
    assert await client(handle).embed_text(tokens, CARD.identity, deadline, None) is ANSWER
    calls = handle.methods["embed_text"].calls
    assert [arguments[0] is tokens for arguments in calls] == [True, True]


async def test_a_stack_that_is_larger_than_a_message_may_be_is_not_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    too_large = AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), Metadata(), "Sent message larger than max"
    )
    handle = Handle(embed=(too_large, ANSWER))
    assert isinstance(await failure(client(handle)), Internal)
    assert len(handle.methods["embed"].calls) == 1
    assert "RESOURCE_EXHAUSTED, 'Sent message larger than max'" in caplog.text
