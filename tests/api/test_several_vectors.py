"""A model that gives several vectors for each image: all of them come, or none."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import Connect
from tests.api.requests import error, post
from tests.fakes import PATCHES, FakeModel

ITEM = {"path": "tom.jpg"}
NPY = {"accept": "application/x-npy"}


@pytest.fixture
def colours(photo: Path) -> Any:
    """The photo's four vectors, not normalised."""

    async def of(client: httpx.AsyncClient) -> Any:
        (row,) = (await post(client, input=ITEM, normalize=False)).json()["data"]
        return np.array(row["embedding"], np.float32)

    return of


async def test_json_has_a_list_of_vectors_and_its_shape(connect: Connect, colours: Any) -> None:
    async with connect(FakeModel(PATCHES)) as client:
        raw = await colours(client)
        (row,) = (await post(client, input=ITEM)).json()["data"]
    assert (row["object"], row["index"], row["shape"]) == ("multi_embedding", 0, [4, 3])
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)  # each vector by itself
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype", "make"),
    [
        ("float32", "<f4", lambda unit: unit),
        ("float16", "<f2", lambda unit: unit.astype(np.float16)),
        ("int8", "i1", lambda unit: np.rint(127 * unit)),
        ("ubinary", "u1", lambda unit: np.packbits(unit > 0, axis=1)),
    ],
)
async def test_every_type_and_encoding_has_the_same_numbers(
    connect: Connect,
    photo: Path,
    dtype: str,
    numpy_dtype: str,
    make: Callable[[Any], Any],
) -> None:
    async with connect(FakeModel(PATCHES)) as client:
        unit = np.array((await post(client, input=ITEM)).json()["data"][0]["embedding"])
        (plain,) = (await post(client, input=ITEM, dtype=dtype)).json()["data"]
        response = await post(client, input=ITEM, dtype=dtype, encoding_format="base64")
        (coded,) = response.json()["data"]
        body = {"input": [ITEM, ITEM], "dtype": dtype}
        npy = await client.post("/v1/embeddings", json=body, headers=NPY)
    expected = make(unit.astype(np.float32))
    np.testing.assert_allclose(plain["embedding"], expected, atol=1e-3)
    assert plain["shape"] == coded["shape"] == [4, 3]
    array = np.frombuffer(base64.b64decode(coded["embedding"]), numpy_dtype).reshape(4, -1)
    np.testing.assert_allclose(array, expected, atol=1e-3)
    both = np.load(io.BytesIO(npy.content))
    assert both.dtype == numpy_dtype
    assert both.shape == (2, *expected.shape)
    np.testing.assert_allclose(both[1], expected, atol=1e-3)


async def test_a_failed_item_is_blank_in_a_npy_of_several_vectors(
    connect: Connect, photo: Path
) -> None:
    body = {"input": [ITEM, {"path": "gone.jpg"}], "on_error": "report"}
    async with connect(FakeModel(PATCHES)) as client:
        response = await client.post("/v1/embeddings", json=body, headers=NPY)
        rows = (await post(client, **body)).json()["data"]
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (2, 4, 3)
    assert np.isfinite(array[0]).all()
    assert np.isnan(array[1]).all()
    assert json.loads(response.headers["x-item-errors"])[0]["index"] == 1
    assert [row["object"] for row in rows] == ["multi_embedding", "error"]


async def test_each_vector_is_truncated_and_then_normalised(connect: Connect, colours: Any) -> None:
    async with connect(FakeModel(replace(PATCHES, matryoshka=True))) as client:
        raw = (await colours(client))[:, :2]
        (row,) = (await post(client, input=ITEM, dimensions=2)).json()["data"]
    assert row["shape"] == [4, 2]
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-6)


async def test_models_say_how_many_vectors_an_image_has_and_where(connect: Connect) -> None:
    async with connect(FakeModel(PATCHES), FakeModel()) as client:
        several, one = (await client.get("/v1/models")).json()["data"]
    assert (several["vectors_per_image"], several["grid"], several["dimensions"]) == (4, [2, 2], 3)
    assert (one["vectors_per_image"], one["grid"]) == (1, None)


async def test_what_was_embedded_before_is_cached_whole(connect: Connect, photo: Path) -> None:
    model = FakeModel(PATCHES)
    async with connect(model) as client:
        first = (await post(client, input=ITEM)).json()
        again = (await post(client, input=[ITEM, ITEM])).json()
    assert len(model.stacks) == 1
    assert again["usage"]["cached"] == 2
    assert [row["embedding"] for row in again["data"]] == [first["data"][0]["embedding"]] * 2


URI = "data:image/png;base64,"
REFUSING: list[tuple[str, dict[str, Any]]] = [
    ("/v1/similarity", {"a": [ITEM], "b": [ITEM]}),
    ("/v1/rank", {"query": ITEM, "documents": [ITEM]}),
    ("/v1/rerank", {"query": {"text": "x"}, "documents": [{"text": "x"}]}),
    ("/rerank", {"query": "x", "texts": ["x"]}),
    ("/v1/score", {"queries": "x", "documents": ["x"]}),
    ("/embed", {"inputs": ["x"]}),
    ("/v1/embed", {"texts": ["x"]}),
    ("/v2/embed", {"images": [URI + "x"]}),
    ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "text", "text": "x"}]}]}),
    ("/vectorize", {"texts": ["x"]}),
    (
        "/v2/models/patches/infer",
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [URI + "x"]}]},
    ),
]


@pytest.mark.parametrize(("path", "body"), REFUSING)
async def test_what_needs_one_vector_refuses_before_any_work(
    connect: Connect, photo: Path, path: str, body: dict[str, Any]
) -> None:
    model = FakeModel(PATCHES)
    async with connect(model) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 400
    assert "patches gives 4 vectors for each image, and one is needed here" in response.text
    assert not model.stacks


async def test_immich_refuses_too(connect: Connect, jpeg: Callable[..., bytes]) -> None:
    entries = json.dumps({"clip": {"visual": {"modelName": "patches"}}})
    async with connect(FakeModel(PATCHES)) as client:
        files = {"image": ("tom.jpg", jpeg(1), "image/jpeg")}
        response = await client.post("/predict", data={"entries": entries}, files=files)
    assert response.status_code == 400
    assert "one is needed here" in response.json()["detail"]


async def test_classify_says_that_the_model_reads_no_texts(connect: Connect, photo: Path) -> None:
    async with connect(FakeModel(PATCHES)) as client:
        response = await client.post("/v1/classify", json={"input": ITEM, "labels": ["a"]})
    assert error(response)["code"] == "text_unsupported"


async def test_an_answer_that_would_be_too_large_is_refused_with_what_would_do(
    connect: Connect, photo: Path
) -> None:
    model = FakeModel(PATCHES)
    # 12 numbers an item: 156 bytes in JSON, 64 in base64, 48 in .npy.
    async with connect(model, limits={"max_body_bytes": 400}) as client:
        refused = await post(client, input=[ITEM] * 3)
        assert not model.stacks
        fewer = await post(client, input=[ITEM] * 2)
        shorter = await post(client, input=[ITEM] * 6, encoding_format="base64")
        array = await client.post("/v1/embeddings", json={"input": [ITEM] * 8}, headers=NPY)
        packed = await post(client, input=[ITEM] * 9, dtype="ubinary")
    assert refused.status_code == 413
    assert error(refused)["code"] == "too_many_items"
    assert error(refused)["param"] == "input"
    assert "Send at most 2 images; embeddings take less" in error(refused)["message"]
    assert [r.status_code for r in (fewer, shorter, array)] == [200] * 3
    assert "at most 8 images" in error(packed)["message"]  # the model's own are floats anyway


async def test_items_that_take_much_memory_fill_the_queue_sooner(
    connect: Connect, photo: Path
) -> None:
    limits = {"max_queued_items": 64, "max_inflight_bytes": 64 * 16}  # 3 places for 48 bytes
    model = FakeModel(PATCHES)
    waiting, go_on = asyncio.Event(), asyncio.Event()
    embed = model.embed

    async def held(*args: Any) -> Any:
        waiting.set()
        await go_on.wait()
        return await embed(*args)

    model.embed = held  # type: ignore[assignment,method-assign]
    async with connect(model, limits=limits, cache={"max_bytes": 0}) as client:
        first = asyncio.create_task(post(client, input=[ITEM] * 10))
        await waiting.wait()
        refused = await post(client, input=[ITEM] * 12)  # 30 and 36 are more than 64
        go_on.set()
        assert (await first).status_code == 200
        assert (await post(client, input=[ITEM] * 12)).status_code == 200
    assert error(refused)["code"] == "overloaded"
