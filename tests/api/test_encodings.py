"""Vectors come as floats, base64 or NPY, in the type and length that were asked for."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.wire import StackVectors
from tests.api.conftest import Connect
from tests.api.requests import error, post
from tests.fakes import CARD, FakeModel


async def test_base64_is_the_little_endian_array(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        floats = (await post(client, input=item)).json()["data"][0]["embedding"]
        for dtype, numpy_dtype in (("float32", "<f4"), ("float16", "<f2"), ("int8", "i1")):
            response = await post(client, input=item, encoding_format="base64", dtype=dtype)
            raw = base64.b64decode(response.json()["data"][0]["embedding"])
            got = np.frombuffer(raw, numpy_dtype).astype(np.float32)
            scale, tolerance = (127, 0.5) if dtype == "int8" else (1, 1e-3)
            assert got / scale == pytest.approx(floats, abs=tolerance / scale)


async def test_int8_is_rounded_and_ubinary_packs_signs_most_significant_first(
    connect: Connect, photo: Path
) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        floats = np.array((await post(client, input=item)).json()["data"][0]["embedding"])
        int8 = (await post(client, input=item, dtype="int8")).json()["data"][0]["embedding"]
        bits = (await post(client, input=item, dtype="ubinary")).json()["data"][0]["embedding"]
    assert int8 == np.rint(127 * floats).tolist()
    expected = "".join("1" if x > 0 else "0" for x in floats).ljust(16, "0")
    assert bits == [int(expected[:8], 2), int(expected[8:], 2)]


async def test_normalize_false_keeps_the_models_own_norm(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        raw = (await post(client, input={"path": "tom.jpg"}, normalize=False)).json()
        unit = (await post(client, input={"path": "tom.jpg"})).json()
        refused = await post(client, input={"path": "tom.jpg"}, normalize=False, dtype="int8")
    raw, unit = raw["data"][0]["embedding"], unit["data"][0]["embedding"]
    assert np.linalg.norm(raw) > 2
    assert np.array(raw) / np.linalg.norm(raw) == pytest.approx(unit)
    assert error(refused)["code"] == "bad_request"


async def test_npy_is_one_array_with_nan_rows_for_failures(connect: Connect, photo: Path) -> None:
    items = [{"path": "tom.jpg"}, {"path": "gone.jpg"}]
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            json={"input": items, "on_error": "report"},
            headers={"accept": "application/x-npy"},
        )
        alone = (await post(client, input=items[0])).json()["data"][0]["embedding"]
    assert response.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (2, 12)
    assert array.dtype == np.float32
    assert array[0] == pytest.approx(alone)
    assert np.isnan(array[1]).all()
    (item,) = json.loads(response.headers["x-item-errors"])
    assert (item["index"], item["code"]) == (1, "path_not_found")


@pytest.mark.parametrize(("dtype", "width"), [("int8", 12), ("ubinary", 2), ("float16", 12)])
async def test_failed_rows_of_an_npy_are_zero_where_the_type_has_no_nan(
    connect: Connect, photo: Path, dtype: str, width: int
) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            json={"input": [7, {"path": "tom.jpg"}], "on_error": "report", "dtype": dtype},
            headers={"accept": "application/x-npy;q=0.9, application/json;q=0.5"},
        )
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (2, width)
    assert array[1].any()
    if dtype == "float16":
        assert np.isnan(array[0]).all()
    else:
        assert not array[0].any()


async def test_many_item_errors_still_fit_into_a_header_that_clients_accept(
    connect: Connect,
) -> None:
    async with connect() as client:
        for number, form in ((150, "codes"), (512, "indices"), (2048, "number")):
            response = await client.post(
                "/v1/embeddings",
                json={"input": [{"path": "gone.jpg"}] * number, "on_error": "report"},
                headers={"accept": "application/x-npy"},
            )
            header = response.headers["x-item-errors"]
            assert len(header) < 8190
            content = json.loads(header)
            if form == "codes":
                assert content[149] == {"index": 149, "code": "path_not_found"}
            elif form == "indices":
                assert content == [{"code": "path_not_found", "indices": list(range(512))}]
            else:
                assert content == [{"code": "path_not_found", "number": 2048}]
            assert np.load(io.BytesIO(response.content)).shape == (number, 12)


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        (None, 200, "application/json"),
        ("*/*", 200, "application/json"),
        (" ", 200, "application/json"),
        (" , ,", 200, "application/json"),
        (", application/x-npy,", 200, "application/x-npy"),
        ("application/json", 200, "application/json"),
        ("application/*", 200, "application/json"),
        ("text/html, application/x-npy;q=0.1", 200, "application/x-npy"),
        ("application/x-npy, */*", 200, "application/x-npy"),
        ("application/json;q=0, */*", 200, "application/x-npy"),
        ("application/json;q=0.2, application/x-npy;q=0.3", 200, "application/x-npy"),
        ("application/x-npy", 200, "application/x-npy"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200, "application/json"),
        ("application/json;q=.9", 200, "application/json"),
        ("application/json;q=.2, application/x-npy;q=.3", 200, "application/x-npy"),
        ("application/x-npy;q=0", 406, "application/json"),
        ("text/html", 406, "application/json"),
        ("application/json;q=soon", 406, "application/json"),
        ("application/json;q=nan", 406, "application/json"),
    ],
)
async def test_accept_chooses_the_answer(
    connect: Connect, photo: Path, accept: str | None, status: int, kind: str
) -> None:
    headers = {"accept": accept} if accept else {}
    async with connect() as client:
        if not accept:
            del client.headers["accept"]
        body = {"input": {"path": "tom.jpg"}}
        response = await client.post("/v1/embeddings", json=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == kind
    if status == 406:
        assert error(response)["code"] == "not_acceptable"


async def test_dimensions_need_a_matryoshka_model(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        assert (await post(client, input=item, dimensions=12)).status_code == 200
        body = error(await post(client, input=item, dimensions=6))
        assert (body["code"], body["param"]) == ("dimensions_unsupported", "dimensions")
        assert error(await post(client, input=item, dimensions=0))["code"] == "bad_request"


async def test_shortened_vectors_are_normalised_again(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect(FakeModel(replace(CARD, matryoshka=True))) as client:
        whole = np.array((await post(client, input=item)).json()["data"][0]["embedding"])
        response = await post(client, input=item, dimensions=6)
        short = np.array(response.json()["data"][0]["embedding"])
        too_long = await post(client, input=item, dimensions=13)
    assert short == pytest.approx(whole[:6] / np.linalg.norm(whole[:6]))
    assert error(too_long)["code"] == "dimensions_unsupported"


@pytest.mark.parametrize("accept", ["application/json", "application/x-npy"])
@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_a_vector_beyond_float16_is_an_error_of_its_item(
    connect: Connect, photo: Path, accept: str, encoding: str
) -> None:
    class Large(FakeModel):
        async def embed(self, *call: Any) -> StackVectors:
            made = await super().embed(*call)
            return made._replace(vectors=made.vectors * 1e6)

    body = {
        "input": [{"path": "tom.jpg"}],
        "dtype": "float16",
        "encoding_format": encoding,
        "normalize": False,
    }
    async with connect(Large()) as client:
        refused = await client.post("/v1/embeddings", json=body, headers={"accept": accept})
        body["normalize"] = True
        good = await client.post("/v1/embeddings", json=body, headers={"accept": accept})
        body |= {"normalize": False, "dtype": "float32"}
        wide = await client.post("/v1/embeddings", json=body, headers={"accept": accept})
    assert (refused.status_code, error(refused)["code"]) == (400, "bad_request")
    assert error(refused)["param"] == "input[0]"
    assert "float32" in error(refused)["message"]
    assert (good.status_code, wide.status_code) == (200, 200)
