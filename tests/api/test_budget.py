"""The bytes of all bodies in flight are bounded, tested through the whole HTTP layer."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from deployments.api.budget import BodyBudget
from deployments.settings import Limits
from tests.api.conftest import Connect

KIB = 1024
BUDGET = {"max_inflight_bytes": 300 * KIB, "max_body_bytes": 200 * KIB}
IMAGE = {"Content-Type": "image/jpeg"}


class Halves:
    """A body that is sent in two halves, the second one only after `may_end` is set."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.may_end = asyncio.Event()
        self.half_sent = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data[: len(self._data) // 2]
        self.half_sent.set()
        await self.may_end.wait()
        yield self._data[len(self._data) // 2 :]


def padded(image: bytes, size: int) -> bytes:
    return image + bytes(size - len(image))


def with_length(data: bytes) -> dict[str, str]:
    return {**IMAGE, "Content-Length": str(len(data))}


async def test_bytes_that_are_announced_but_not_sent_keep_nobody_out(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    data = padded(jpeg(1), 180 * KIB)
    async with connect(limits=BUDGET) as client:
        idle = []
        for _ in range(5):
            body = Halves(data[:2])
            posted = client.post("/v1/embeddings", content=body, headers=with_length(data))
            idle.append(asyncio.create_task(posted))
            await body.half_sent.wait()
        response = await client.post("/v1/embeddings", content=data, headers=with_length(data))
        assert response.status_code == 200
        for task in idle:
            task.cancel()
        await asyncio.wait(idle)


async def test_a_body_counts_as_it_arrives_until_its_request_is_answered(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    data = padded(jpeg(1), 180 * KIB)
    bodies = [Halves(data) for _ in range(3)]
    async with connect(limits=BUDGET) as client:
        tasks = []
        for body in bodies:  # the first halves fit together
            posted = client.post("/v1/embeddings", content=body, headers=IMAGE)
            tasks.append(asyncio.create_task(posted))
            await body.half_sent.wait()
        bodies[0].may_end.set()
        refused = await tasks[0]
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert "retry-after" in refused.headers
        bodies[1].may_end.set()  # in the space that the first one freed
        assert (await tasks[1]).status_code == 200
        bodies[2].may_end.set()
        assert (await tasks[2]).status_code == 200


async def test_a_body_larger_than_the_budget_is_let_in_alone(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    data = padded(jpeg(1), 100 * KIB)
    async with connect(limits={"max_inflight_bytes": 50 * KIB}) as client:
        response = await client.post("/v1/embeddings", content=data, headers=IMAGE)
        assert response.status_code == 200


async def test_a_body_that_is_refused_for_its_size_takes_none_of_the_budget(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    large, small = bytes(250 * KIB), padded(jpeg(1), 180 * KIB)
    async with connect(limits=BUDGET) as client:
        for data, status in ((large, 413), (large, 413), (small, 200)):
            response = await client.post("/v1/embeddings", content=data, headers=with_length(data))
            assert response.status_code == status


async def test_one_key_gets_at_most_half_of_the_budget(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    data = padded(jpeg(1), 100 * KIB)
    keys = [
        {"name": secret, "sha256": hashlib.sha256(secret.encode()).hexdigest()} for secret in "ab"
    ]
    async with connect(limits=BUDGET, auth={"keys": keys}) as client:

        async def post(secret: str, content: Any) -> int:
            headers = {**IMAGE, "Authorization": f"Bearer {secret}"}
            answer = await client.post("/v1/embeddings", content=content, headers=headers)
            return answer.status_code

        body = Halves(data + data[:2])
        first = asyncio.create_task(post("a", body))
        await body.half_sent.wait()
        other = Halves(data + data[:2])
        second = asyncio.create_task(post("a", other))
        await other.half_sent.wait()
        assert await post("a", data) == 429
        assert await post("b", data) == 200
        body.may_end.set()
        other.may_end.set()
        assert {await first, await second} == {200, 429}
        assert await post("a", data) == 200


async def test_a_body_no_longer_counts_while_its_answer_is_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"slowly"})

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(200 * KIB), "more_body": False}

    read = asyncio.Event()

    async def send_slowly(message: Message) -> None:
        if message["type"] == "http.response.body":
            await read.wait()

    async def send(message: Message) -> None:
        pass

    budget = BodyBudget(app, Limits(max_inflight_bytes=300 * KIB))
    scope = {"type": "http", "headers": []}
    slow = [asyncio.create_task(budget(dict(scope), receive, send_slowly)) for _ in range(2)]
    await asyncio.sleep(0)
    await budget(dict(scope), receive, send)
    read.set()
    await asyncio.gather(*slow)


async def test_large_bodies_that_stall_leave_room_for_small_ones(
    connect: Connect, jpeg: Callable[..., bytes]
) -> None:
    mib = 1024 * KIB
    limits = {"max_inflight_bytes": 16 * mib, "max_body_bytes": 16 * mib}
    async with connect(limits=limits) as client:
        stalled = []
        for _ in range(2):
            body = Halves(bytes(14 * mib))
            posted = client.post("/v1/embeddings", content=body, headers=IMAGE)
            stalled.append(asyncio.create_task(posted))
            await body.half_sent.wait()
        large = await client.post("/v1/embeddings", content=bytes(2 * mib), headers=IMAGE)
        small = await client.post("/v1/embeddings", content=jpeg(1), headers=IMAGE)
        for task in stalled:
            task.cancel()
        await asyncio.wait(stalled)
    assert (large.status_code, small.status_code) == (429, 200)
