"""POST /v1/embeddings gives a vector for each item, in OpenAI's shape."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.conftest import Connect
from tests.api.requests import b64, post
from tests.conftest import Jpeg
from tests.fakes import CARD, FakeModel


async def test_path_base64_data_uri_upload_and_raw_body_give_the_same_vector(
    connect: Connect, photo: Path
) -> None:
    data = photo.read_bytes()
    uri = f"data:image/jpeg;base64,{b64(data)['base64']}"
    inputs: list[Any] = [
        {"path": "tom.jpg"},
        {"path": str(photo)},
        b64(data),
        {"base64": uri},
        {"image": b64(data)["base64"]},
        {"type": "image_url", "image_url": {"url": uri}},
        uri,
    ]
    async with connect() as client:
        responses = [await post(client, input=item) for item in inputs]
        responses.append(await client.post("/v1/embeddings", files={"file": data}))
        headers = {"content-type": "image/jpeg"}
        responses.append(await client.post("/v1/embeddings", content=data, headers=headers))
    assert [r.status_code for r in responses] == [200] * 9
    vectors = [r.json()["data"][0]["embedding"] for r in responses]
    assert all(v == vectors[0] for v in vectors)
    assert len(vectors[0]) == 12
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)


async def test_the_answer_has_openais_shape(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        response = await post(client, input=[{"path": "tom.jpg"}], model="fake", user="u", foo=1)
    body = response.json()
    assert body["object"] == "list"
    assert body["model"] == "fake"
    assert body["data"][0].keys() == {"object", "index", "embedding"}
    assert body["usage"] == {
        "prompt_tokens": 0,
        "total_tokens": 0,
        "images": 1,
        "texts": 0,
        "cached": 0,
    }


async def test_data_has_the_order_and_length_of_input(connect: Connect, jpeg: Jpeg) -> None:
    items = [b64(jpeg(i)) for i in range(70)]
    model = FakeModel()
    async with connect(model) as client:
        together = (await post(client, input=items)).json()["data"]
        alone = [(await post(client, input=i)).json()["data"][0] for i in items[:3]]
    assert [d["index"] for d in together] == list(range(70))
    assert [d["embedding"] for d in together[:3]] == [d["embedding"] for d in alone]
    assert sorted(len(s) for s in model.stacks[:3]) == [6, 32, 32]
    assert len({tuple(d["embedding"]) for d in together}) == 70


async def test_duplicates_in_a_request_are_computed_once(connect: Connect, photo: Path) -> None:
    model = FakeModel()
    async with connect(model) as client:
        items = [{"path": "tom.jpg"}, b64(photo.read_bytes()), {"path": "tom.jpg"}]
        body = (await post(client, input=items)).json()
    assert body["usage"]["cached"] == 2
    assert body["usage"]["images"] == 3
    assert sum(len(s) for s in model.stacks) == 1
    assert body["data"][0]["embedding"] == body["data"][1]["embedding"]


async def test_an_alias_names_the_served_model(connect: Connect, photo: Path) -> None:
    async with connect(FakeModel(replace(CARD, aliases=("text-embedding-3-small",)))) as client:
        response = await post(client, input={"path": "tom.jpg"}, model="text-embedding-3-small")
    assert response.json()["model"] == "fake"


async def test_server_timing_names_every_stage(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        response = await post(client, input={"path": "tom.jpg"})
    stages = [part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")]
    assert stages == ["fetch", "decode", "queue", "model", "total"]
