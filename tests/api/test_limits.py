"""Limits on size, number, queue and time, and bodies that cost far more than they seem to."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.api import render
from tests.api.conftest import Connect
from tests.api.requests import b64, error, post
from tests.conftest import Jpeg
from tests.fakes import TEXT, FakeModel
from tests.service.fakes import HeldModel


async def test_too_many_items_and_too_large_bodies_or_images_are_a_413(
    connect: Connect, jpeg: Jpeg
) -> None:
    big, small = jpeg(1, (640, 480)), jpeg(2, (32, 24))
    limits = {"max_items": 2, "max_body_bytes": 60_000, "max_image_bytes": 5000}
    async with connect(limits={**limits, "max_image_pixels": 1000}) as client:
        many = await post(client, input=[b64(small)] * 3)
        files = await client.post("/v1/embeddings", files=[("file", small)] * 3)
        body = await post(client, input="x" * 60_000)

        async def chunks() -> Any:
            for _ in range(70):
                yield b"x" * 1000

        headers = {"content-type": "application/json"}
        chunked = await client.post("/v1/embeddings", content=chunks(), headers=headers)
        too_many_bytes = await post(client, input=b64(big))
        upload = await client.post("/v1/embeddings", files={"file": big})
        too_many_pixels = await post(client, input=b64(jpeg(3, (40, 30))))
        good = await post(client, input=b64(small))
    for response, code in (
        (many, "too_many_items"),
        (files, "too_many_items"),
        (body, "body_too_large"),
        (chunked, "body_too_large"),
        (too_many_bytes, "image_too_large"),
        (upload, "image_too_large"),
        (too_many_pixels, "image_too_large"),
    ):
        assert response.status_code == 413
        assert error(response)["code"] == code
    assert [error(r)["param"] for r in (many, files)] == ["input", "file"]
    assert good.status_code == 200


async def test_a_full_queue_answers_429_and_empties_again(connect: Connect, photo: Path) -> None:
    class Slow(FakeModel):
        release = asyncio.Event()

        async def embed(self, *call: Any) -> Any:
            await self.release.wait()
            return await super().embed(*call)

    model = Slow()
    item = {"path": "tom.jpg"}
    async with connect(model, limits={"max_queued_items": 2}) as client:
        waiting = [asyncio.create_task(post(client, input=item)) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await post(client, input=item)
        model.release.set()
        assert [(await w).status_code for w in waiting] == [200, 200]
        assert (await post(client, input=item)).status_code == 200
    assert refused.status_code == 429
    assert error(refused)["type"] == "overloaded_error"
    assert int(refused.headers["retry-after"]) > 0


async def test_a_request_is_answered_when_its_time_is_up(connect: Connect, photo: Path) -> None:
    class Stuck(FakeModel):
        async def embed(self, *call: Any) -> Any:
            await asyncio.sleep(60)

    began = time.monotonic()
    async with connect(Stuck(), limits={"request_timeout_s": 0.3}) as client:
        headers = {"x-request-timeout-seconds": "0"}
        body = {"input": {"path": "tom.jpg"}}
        response = await client.post("/v1/embeddings", json=body, headers=headers)
    assert time.monotonic() - began < 2
    assert response.status_code == 504
    assert error(response)["code"] == "deadline_exceeded"


# Bodies that cost far more than they seem to


@pytest.mark.parametrize("path", ["embeddings", "similarity", "rank", "classify"])
async def test_too_many_items_are_counted_before_they_are_parsed(
    connect: Connect, path: str
) -> None:
    items = [0] * 400_000
    body = {
        "embeddings": {"input": items},
        "similarity": {"a": items, "b": items},
        "rank": {"query": "x", "documents": items},
        "classify": {"input": items, "labels": ["a"]},
    }[path]
    async with connect(FakeModel(text=TEXT)) as client:
        began = time.monotonic()
        response = await client.post(f"/v1/{path}", json=body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_many_items"
    assert time.monotonic() - began < 2


async def test_a_body_of_a_million_values_is_not_even_read_as_json(connect: Connect) -> None:
    content = b'{"input": [' + b"{}," * 1_100_000 + b"{}]}"
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=content, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


async def test_json_of_too_many_keys_is_refused_before_it_is_parsed(connect: Connect) -> None:
    body = b'{"input":"x",' + b",".join(b'"%d":{}' % i for i in range(300_000)) + b"}"
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=body, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413


async def test_a_large_answer_is_sent_in_pieces() -> None:
    answer = render.json_response({"x": "y" * 700_000}, headers={"A": "b"})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await answer({"type": "http"}, receive, send)
    start, *pieces = sent
    assert start["type"] == "http.response.start"
    assert (b"content-length", str(len(answer.body)).encode()) in start["headers"]
    assert b"".join(piece["body"] for piece in pieces) == answer.body
    assert [piece["more_body"] for piece in pieces] == [True, True, False]
    assert max(len(piece["body"]) for piece in pieces) <= render.PIECE_BYTES


async def test_a_request_that_would_wait_too_long_is_refused_before_its_body_is_read(
    connect: Connect, jpeg: Jpeg
) -> None:
    model = HeldModel()
    model.image_s = 2.0
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield jpeg(9)

    headers = {"content-type": "image/jpeg"}
    async with connect(model) as client:
        waiting = [
            asyncio.create_task(client.post("/v1/embeddings", content=jpeg(n), headers=headers))
            for n in range(3)
        ]
        await model.taken(3)
        refused = await client.post("/v1/embeddings", content=body(), headers=headers)
        others = await client.get("/v1/models")
        for call in model.calls:
            call.set_result(None)
        answered = {response.status_code for response in await asyncio.gather(*waiting)}
    assert error(refused)["code"] == "overloaded"
    assert refused.headers["retry-after"] == "6"
    assert not read
    assert (refused.status_code, others.status_code, answered) == (429, 200, {200})


async def test_a_query_is_none_of_the_items_that_one_request_may_have(connect: Connect) -> None:
    documents = [f"{number:06d}" for number in range(3)]
    async with connect(FakeModel(text=TEXT), limits={"max_items": 3}) as client:
        for path, name in (("/v1/rank", "query"), ("/v1/rerank", "query"), ("/v1/score", "text_1")):
            rest = "text_2" if name == "text_1" else "documents"
            full = await client.post(path, json={name: "a", rest: documents})
            more = await client.post(path, json={name: "a", rest: [*documents, "b"]})
            assert (full.status_code, more.status_code) == (200, 413)
