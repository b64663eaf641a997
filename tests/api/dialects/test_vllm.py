"""vLLM's score: pairs of items, in all the names that its versions have for them."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import Connect
from tests.api.requests import error
from tests.fakes import TEXT, FakeModel

RED, BLUE = "a wall of #ff0000", "a wall of #0000ff"


async def score(client: httpx.AsyncClient, **body: Any) -> list[float]:
    response = await client.post("/v1/score", json=body)
    assert response.status_code == 200, response.text
    return [entry["score"] for entry in response.json()["data"]]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("first", ["queries", "text_1", "data_1"])
@pytest.mark.parametrize("second", ["documents", "items", "text_2", "data_2"])
async def test_a_query_is_scored_with_each_document(
    connect: Connect, path: str, first: str, second: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(path, json={first: RED, second: [RED, BLUE]})
        pairs = {"a": [RED, RED], "b": [RED, BLUE]}
        expected = (await client.post("/v1/similarity", json=pairs)).json()["scores"]
    found = response.json()
    assert found.pop("id") == response.headers["x-request-id"]
    assert found.pop("created") > 1_700_000_000
    tokens = len(RED) * 2 + len(BLUE)
    assert found == {
        "object": "list",
        "model": "fake",
        "data": [
            {"index": 0, "object": "score", "score": pytest.approx(expected[0])},
            {"index": 1, "object": "score", "score": pytest.approx(expected[1])},
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


async def test_lists_of_equal_length_are_paired(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        found = await score(client, queries=[RED, BLUE], documents=[RED, RED])
        one = await score(client, queries=RED, documents=RED)
        apart = await score(client, queries=[BLUE], documents=[RED])
    assert found == [*one, *apart]
    assert one == [pytest.approx(1)]
    assert apart[0] < 0.9


async def test_an_image_is_an_item_as_a_part_of_content(connect: Connect, photo: Path) -> None:
    uri = f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    part = {"type": "image_url", "image_url": {"url": uri}}
    async with connect(FakeModel(text=TEXT)) as client:
        as_part = await score(client, queries=RED, documents={"content": [part]})
        as_item = await score(client, queries=RED, documents=[{"path": photo.name}])
    assert as_part == as_item


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"queries": [RED, RED], "documents": [RED]}, "queries"),
        ({"text_1": [RED, RED], "text_2": [RED, RED, RED]}, "text_1"),
        ({"queries": [], "documents": [RED]}, "queries"),
        ({"queries": RED, "items": []}, "items"),
        ({"queries": RED}, "documents"),
        ({"queries": RED, "documents": None}, "documents"),
        ({"documents": RED}, "queries"),
        ({"queries": RED, "text_1": RED, "documents": RED}, "queries"),
        ({"queries": RED, "documents": [RED, 5]}, "documents[1]"),
        ({"queries": {"content": [{"text": RED}, {"text": RED}]}, "documents": RED}, "queries"),
    ],
)
async def test_what_makes_no_pairs_is_refused_by_name(
    connect: Connect, body: dict[str, Any], param: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post("/score", json=body)
    assert response.status_code == 400
    assert error(response)["param"] == param


async def test_too_many_pairs_and_unknown_models_are_refused(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_items": 3}) as client:
        many = await client.post("/score", json={"queries": RED, "documents": [RED] * 4})
        other = await client.post("/score", json={"queries": RED, "documents": RED, "model": "b"})
    assert error(many)["code"] == "too_many_items"
    assert error(other)["code"] == "model_not_found"


@pytest.mark.parametrize("param", ["max_tokens_per_query", "max_tokens_per_doc"])
async def test_fewer_tokens_than_the_model_reads_are_refused(connect: Connect, param: str) -> None:
    body = {"queries": RED, "documents": RED}
    async with connect(FakeModel(text=TEXT)) as client:
        assert await score(client, **body, **{param: 24}) == await score(client, **body)
        assert await score(client, **body, **{param: 0}) == await score(client, **body)
        few = await client.post("/score", json={**body, param: 23})
    assert error(few)["param"] == param


async def test_a_prompt_is_not_truncated_to_less_than_the_model_reads(connect: Connect) -> None:
    body = {"queries": RED, "documents": RED}
    async with connect(FakeModel(text=TEXT)) as client:
        expected = await score(client, **body)
        for tokens in (-1, 24):
            assert await score(client, **body, truncate_prompt_tokens=tokens) == expected
        few = await client.post("/score", json={**body, "truncate_prompt_tokens": 23})
        left = await client.post("/score", json={**body, "truncation_side": "left"})
    assert (few.status_code, left.status_code) == (400, 400)
    assert error(few)["param"] == "truncate_prompt_tokens"
    assert error(left)["param"] == "truncation_side"
