"""Weaviate's module multi2vec-clip: what it sends, and what it reads."""

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.api.dialects.weaviate import READY_S
from deployments.errors import Unavailable
from deployments.wire import ModelCard
from tests.api.conftest import Connect
from tests.fakes import TEXT, FakeModel

RED = "a wall of #ff0000"


async def embeddings(client: httpx.AsyncClient, *items: Any) -> list[Any]:
    answer = await client.post("/v1/embeddings", json={"input": [*items]})
    return [row["embedding"] for row in answer.json()["data"]]


def sentence(response: httpx.Response) -> str:
    """Of an error as Weaviate reads it."""
    content = response.json()
    assert content.keys() == {"error"}
    return str(content["error"])


async def test_vectors_are_those_of_v1_embeddings_in_order(connect: Connect, photo: Path) -> None:
    data = base64.b64encode(photo.read_bytes()).decode()
    async with connect(FakeModel(text=TEXT)) as client:
        both = await client.post("/vectorize", json={"texts": [RED, "b"], "images": [data]})
        texts = await client.post("/vectorize", json={"texts": ["b"], "images": None})
        images = await client.post("/vectorize", json={"images": [data, f"data:;base64,{data}"]})
        nothing = await client.post("/vectorize", json={})
        expected = await embeddings(client, RED, "b", {"base64": data})
    assert both.json() == {"textVectors": expected[:2], "imageVectors": expected[2:]}
    assert texts.json() == {"textVectors": expected[1:2], "imageVectors": []}
    assert images.json() == {"textVectors": [], "imageVectors": [expected[2]] * 2}
    assert (nothing.status_code, nothing.json()) == (200, {"textVectors": [], "imageVectors": []})


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"texts": "a"}', 400, "texts must be a list"),
        (b'{"texts": [1]}', 400, "texts[0] must be a string"),
        (b'{"images": ["http://127.0.0.1/"]}', 400, "base64"),
        (b'{"images": ["aGVsbG8="]}', 415, "not an image"),
        (b'{"texts": ["a", "b", "c"], "images": ["x", "x"]}', 413, "5 items"),
        (b"{", 400, "not valid JSON"),
    ],
)
async def test_errors_are_a_string(connect: Connect, body: bytes, status: int, text: str) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_items": 4}) as client:
        response = await client.post("/vectorize", content=body)
    assert response.status_code == status
    assert text in sentence(response)


async def test_whatever_refuses_a_request_does_so_in_weaviates_words(
    connect: Connect,
) -> None:
    key = {"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest()}
    async with connect(FakeModel(), auth={"keys": [key]}) as client:
        assert "valid key" in sentence(await client.post("/vectorize", json={}))
        assert "valid key" in sentence(await client.get("/meta"))
        assert (await client.get("/.well-known/ready")).status_code == 204
    async with connect(FakeModel(), limits={"max_body_bytes": 30}) as client:
        assert "method" in sentence(await client.get("/vectorize"))
        assert "larger" in sentence(await client.post("/vectorize", json={"texts": ["long" * 9]}))
        assert "images only" in sentence(await client.post("/vectorize", json={"texts": ["a"]}))
    async with connect(FakeModel(None)) as client:
        assert "being loaded" in sentence(await client.get("/meta"))
        assert "being loaded" in sentence(await client.get("/.well-known/ready"))


async def test_meta_is_the_first_models_card(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        meta, card = await client.get("/meta"), await client.get("/v1/models/fake")
    assert meta.json() == card.json()


async def test_it_is_alive_and_ready_without_a_body(connect: Connect) -> None:
    async with connect() as client:
        for path in ("/.well-known/live", "/.well-known/ready"):
            response = await client.get(path)
            assert (response.status_code, response.content) == (204, b"")


class BusyModel(FakeModel):
    """Takes all the time that it is given."""

    async def ready(self, within_s: float = 30) -> ModelCard:
        await asyncio.sleep(within_s)
        if self.error is not None:
            raise self.error
        return self.card


async def test_whether_the_model_is_ready_is_answered_before_weaviate_gives_up(
    connect: Connect,
) -> None:
    model = BusyModel()
    began = asyncio.get_running_loop().time()
    async with connect(model) as client:
        busy = await client.get("/.well-known/ready")
        model.error = Unavailable("The model does not answer.")
        stuck = await client.get("/.well-known/ready")
    assert 2 * READY_S <= asyncio.get_running_loop().time() - began < 5
    assert READY_S < 0.5
    assert (busy.status_code, stuck.status_code) == (204, 503)
    assert "does not answer" in sentence(stuck)
