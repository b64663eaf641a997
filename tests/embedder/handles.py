"""A deployment handle whose calls end as scripted, and a client that calls it."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import RequestCancelledError

from deployments.embedder.client import EmbedderClient
from deployments.errors import RaylensError
from deployments.wire import Pixels, StackVectors
from tests.fakes import CARD

STACK = np.zeros((2, 8, 8, 3), np.uint8)
ANSWER = StackVectors(np.ones((2, 12), np.float32), 1.0, 2.0)

DEATHS = [
    ActorDiedError(),
    ActorUnavailableError("the node is gone", None),
    AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "Socket closed"),
    RequestCancelledError("id"),
]

Script = Any
"""How a call ends: a value to return, an error to raise, or something to await."""


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

    def options(self, *, method_name: str, _by_reference: bool, **serialization: str) -> Method:
        self.by_reference[method_name] = _by_reference
        return self.methods[method_name]


def client(handle: Handle) -> EmbedderClient:
    return EmbedderClient(handle, names=frozenset({"fake"}), request_timeout_s=10)


async def embed(
    opened: EmbedderClient, stack: Pixels = STACK, within_s: float = 10.0
) -> StackVectors:
    deadline = asyncio.get_running_loop().time() + within_s
    return await opened.embed(stack, CARD.identity, deadline, None)


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
