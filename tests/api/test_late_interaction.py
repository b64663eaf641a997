"""A late-interaction model: texts have as many vectors as tokens, and rank is by maxsim."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.api import answers
from tests.api.conftest import Connect
from tests.api.requests import error, post
from tests.api.test_answers import check
from tests.fakes import LATE_TEXT, PATCHES, TEXT, FakeModel

IMAGE = {"path": "tom.jpg"}
NPY = {"accept": "application/x-npy"}
DOCUMENTS: list[Any] = ["a cat", "some", IMAGE, "a longer text than these"]


def late() -> FakeModel:
    return FakeModel(PATCHES, text=LATE_TEXT)


async def embedded(client: httpx.AsyncClient, items: Any) -> list[Any]:
    data = (await post(client, input=items)).json()["data"]
    assert {row["object"] for row in data} == {"multi_embedding"}
    return [np.array(row["embedding"], np.float32) for row in data]


async def test_each_text_has_its_own_number_of_vectors(connect: Connect, photo: Path) -> None:
    async with connect(late()) as client:
        response = await post(client, input=["ab", IMAGE, "abcdef", "x" * 30])
        coded = await post(client, input=["ab", "abcdef"], encoding_format="base64")
        alone = await embedded(client, "ab")
    check(response.json(), answers.Embeddings)
    data = response.json()["data"]
    assert [row["shape"] for row in data] == [[2, 3], [4, 3], [6, 3], [24, 3]]
    assert [len(row["embedding"]) for row in data] == [2, 4, 6, 24]
    assert data[3]["truncated"] is True
    np.testing.assert_allclose(data[0]["embedding"], alone[0], atol=1e-6)
    first, second = coded.json()["data"]
    assert len(base64.b64decode(first["embedding"])) == 4 * 2 * 3
    array = np.frombuffer(base64.b64decode(second["embedding"]), "<f4").reshape(second["shape"])
    np.testing.assert_allclose(array, data[2]["embedding"], atol=1e-6)


@pytest.mark.parametrize(("dtype", "blank"), [("float32", np.nan), ("int8", 0)])
async def test_shorter_texts_are_filled_up_in_a_npy(
    connect: Connect, dtype: str, blank: float
) -> None:
    items = ["ab", {"base64": "?"}, "abcdef"]
    body = {"input": items, "on_error": "report", "dtype": dtype}
    async with connect(late()) as client:
        response = await client.post("/v1/embeddings", json=body, headers=NPY)
        short, long = await embedded(client, [items[0], items[2]])
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (3, 6, 3)
    scale = 127 if dtype == "int8" else 1
    np.testing.assert_allclose(array[0, :2] / scale, short, atol=0.005)
    np.testing.assert_allclose(array[2] / scale, long, atol=0.005)
    np.testing.assert_array_equal(array[0, 2:], np.full((4, 3), blank, array.dtype))
    np.testing.assert_array_equal(array[1], np.full((6, 3), blank, array.dtype))


@pytest.mark.parametrize("query", ["a cat", IMAGE])
@pytest.mark.parametrize("score", [{}, {"score": "maxsim"}])
async def test_rank_is_by_the_sum_of_the_largest_cosines(
    connect: Connect, photo: Path, query: Any, score: dict[str, str]
) -> None:
    async with connect(late()) as client:
        body = {"query": query, "documents": DOCUMENTS, **score}
        response = await client.post("/v1/rank", json=body)
        (target,), documents = await embedded(client, [query]), await embedded(client, DOCUMENTS)
    check(response.json(), answers.Rank)
    expected = {i: (target @ d.T).max(axis=1).sum() for i, d in enumerate(documents)}
    found = [(result["index"], result["score"]) for result in response.json()["results"]]
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    assert found[0][1] > 1  # no cosine


async def test_rank_takes_the_models_own_score_alone(connect: Connect, photo: Path) -> None:
    body = {"query": IMAGE, "documents": [IMAGE]}
    models = {"late": (late(), "cosine"), "one": (FakeModel(text=TEXT), "maxsim")}
    models["patches"] = (FakeModel(PATCHES), "maxsim")
    said = {}
    for name, (model, score) in models.items():
        async with connect(model) as client:
            response = await client.post("/v1/rank", json={**body, "score": score})
            said[name] = error(response)["message"]
            assert response.status_code == 400
            assert error(response)["param"] == "score"
            assert not model.stacks
    assert said == {
        "late": "This model's items are compared by maxsim; leave score out.",
        "one": "This model's items are compared by cosine; leave score out.",
        "patches": "This model's vectors are of patches, and no score compares items by them.",
    }


async def test_models_say_how_items_are_compared(connect: Connect) -> None:
    async with connect(late(), FakeModel(), FakeModel(PATCHES)) as client:
        listed = (await client.get("/v1/models")).json()
    check(listed, answers.ModelList)
    assert [model["score"] for model in listed["data"]] == ["maxsim", "cosine", None]
    assert [model["grid"] for model in listed["data"]] == [None, None, [2, 2]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/similarity", {"a": ["x"], "b": ["x"]}),
        ("/v1/classify", {"input": "x", "labels": ["a", "b"]}),
        ("/v1/rerank", {"query": "x", "documents": ["x"]}),
        ("/v2/embed", {"texts": ["x"]}),
    ],
)
async def test_what_needs_one_vector_points_to_rank(
    connect: Connect, path: str, body: dict[str, Any]
) -> None:
    model = late()
    async with connect(model) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 400
    assert "one is needed here" in response.text
    assert "POST /v1/rank compares them" in response.text
    assert not model.token_stacks


async def test_short_texts_are_not_counted_as_long_ones(connect: Connect) -> None:
    model = FakeModel(PATCHES, text=LATE_TEXT)
    # At most 24 vectors of 39 bytes in JSON, and 66 for a text of two letters.
    async with connect(model, limits={"max_body_bytes": 24 * 39 * 3}) as client:
        assert (await post(client, input=["ab"] * 3)).status_code == 200
        refused = await post(client, input=["ab"] * 4)
    assert error(refused)["code"] == "too_many_items"


async def test_a_text_from_the_cache_has_its_own_vectors(connect: Connect) -> None:
    model = late()
    async with connect(model) as client:
        first = await embedded(client, ["ab", "abcdef"])
        again = await embedded(client, ["abcdef", "ab"])
    assert len(model.token_stacks) == 1
    np.testing.assert_array_equal(first[0], again[1])
    np.testing.assert_array_equal(first[1], again[0])
