"""The other endpoints, and what all endpoints have in common."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import ASGIApp

from deployments.api.dialects import DIALECTS
from deployments.api.endpoints import NATIVE
from deployments.api.fence import Fence
from deployments.api.openapi import openapi
from deployments.api.routes import Api
from deployments.errors import RaylensError
from tests.api.conftest import Connect
from tests.fakes import CARD, FakeModel, service

Jpeg = Callable[..., bytes]


@pytest.fixture
def items(jpeg: Jpeg) -> list[dict[str, str]]:
    return [{"base64": base64.b64encode(jpeg(i)).decode()} for i in range(4)]


async def vectors(client: httpx.AsyncClient, items: list[Any]) -> np.ndarray[Any, Any]:
    body = (await client.post("/v1/embeddings", json={"input": items})).json()
    return np.array([d["embedding"] for d in body["data"]])


async def test_similarity_is_the_cosine_of_pairs_or_of_all_against_all(
    connect: Connect, items: list[Any]
) -> None:
    async with connect() as client:
        expected = await vectors(client, items)
        pairs = await client.post("/v1/similarity", json={"a": items[:2], "b": items[2:]})
        body = {"a": items[:1], "b": items, "mode": "matrix"}
        matrix = await client.post("/v1/similarity", json=body)
    assert pairs.json()["scores"] == pytest.approx(np.sum(expected[:2] * expected[2:], axis=1))
    assert matrix.json()["scores"] == [pytest.approx(expected[0] @ expected.T)]
    assert matrix.json()["scores"][0][0] <= 1


async def test_rank_orders_documents_best_first(connect: Connect, items: list[Any]) -> None:
    async with connect() as client:
        expected = await vectors(client, items)
        body = {"query": items[0], "documents": items}
        all_results = (await client.post("/v1/rank", json=body)).json()["results"]
        best = (await client.post("/v1/rank", json={**body, "top_n": 2})).json()["results"]
    order = np.argsort(-(expected @ expected[0]), kind="stable")
    assert [r["index"] for r in all_results] == order.tolist()
    assert [r["score"] for r in all_results] == sorted(
        (r["score"] for r in all_results), reverse=True
    )
    assert best == all_results[:2]
    assert best[0]["index"] == 0
    assert best[0]["score"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("similarity", {"a": ["x"]}, "bad_request", "b"),
        ("similarity", {"a": [], "b": []}, "bad_request", "a"),
        ("similarity", {"a": ["x"], "b": ["y", "z"]}, "bad_request", "b"),
        ("similarity", {"a": ["x"], "b": ["y"], "mode": "all"}, "bad_request", "mode"),
        ("similarity", {"a": ["x"], "b": [7]}, "text_unsupported", "a[0]"),
        ("rank", {"query": {"path": "x"}, "documents": [7]}, "path_not_found", "query"),
        ("rank", {"documents": ["x"]}, "bad_request", "query"),
        ("rank", {"query": [{"path": "x"}], "documents": ["x"]}, "invalid_item", "query"),
        ("rank", {"query": "x", "documents": ["x"], "top_n": 0}, "bad_request", "top_n"),
        ("rank", {"query": "x", "documents": "x"}, "bad_request", "documents"),
        ("classify", {"input": "x", "labels": []}, "bad_request", "labels"),
        ("classify", {"input": "x", "labels": ["a", 3]}, "bad_request", "labels[1]"),
        ("classify", {"input": [], "labels": ["a"]}, "bad_request", "input"),
        ("classify", {"input": "x", "labels": ["cat"]}, "text_unsupported", "labels"),
        ("similarity", {"a": ["x"], "b": ["y"], "model": "other"}, "model_not_found", "model"),
    ],
)
async def test_bad_input_is_refused_with_its_code_and_param(
    connect: Connect, path: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    async with connect() as client:
        error = (await client.post(f"/v1/{path}", json=body)).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


async def test_bad_items_are_named_by_the_group_they_are_in(
    connect: Connect, items: list[Any]
) -> None:
    async with connect() as client:
        body = {"query": items[0], "documents": [items[1], 7]}
        error = (await client.post("/v1/rank", json=body)).json()["error"]
    assert error["param"] == "documents[1]"
    assert [(i["param"], i["index"]) for i in error["items"]] == [("documents[1]", 1)]


async def test_models_lists_what_is_served_and_its_limits(connect: Connect) -> None:
    async with connect(limits={"max_items": 9}) as client:
        body = (await client.get("/v1/models")).json()
    (model,) = body["data"]
    assert body["object"] == "list"
    assert (model["id"], model["object"], model["dimensions"]) == ("fake", "model", 12)
    assert (model["image_size"], model["modalities"]) == (8, ["image"])
    assert (model["precision"], model["device"], model["revision"]) == ("float32", "cpu", "r1")
    assert (model["matryoshka"], model["max_items"]) == (False, 9)
    assert model["limits"] == body["limits"]
    assert body["limits"] == {
        "max_items": 9,
        "max_image_bytes": 20 * 2**20,
        "max_image_pixels": 50_000_000,
        "max_body_bytes": 64 * 2**20,
        "max_labels": 1000,
        "max_text_chars": 8192,
    }


async def test_a_model_can_be_asked_for_by_its_id_or_alias(connect: Connect) -> None:
    async with connect(FakeModel(replace(CARD, id="org/vit", aliases=("vit",)))) as client:
        (expected,) = (await client.get("/v1/models")).json()["data"]
        for name in ("org/vit", "org%2Fvit", "vit"):
            assert (await client.get(f"/v1/models/{name}")).json() == expected
        missing = await client.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_livez_and_readyz_answer_200(connect: Connect) -> None:
    async with connect() as client:
        assert (await client.get("/livez")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ready", "model": "fake"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embedding", 404, "not_found"),
        ("POST", "/v1/embeddings/", 404, "not_found"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/livez", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_have_the_same_error_shape(
    connect: Connect, method: str, path: str, status: int, code: str
) -> None:
    async with connect() as client:
        response = await client.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["server-timing"].startswith("total;dur=")
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/fake/infer", "POST"),
        ("GET", "/v2/models/fake/versions/1/infer", "POST"),
        ("POST", "/v2/models/fake/versions/1", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD, POST"),
        ("DELETE", "/", "GET, HEAD, POST"),
        ("OPTIONS", "/", "GET, HEAD, POST"),
        ("POST", "/docs", "GET, HEAD"),
        ("GET", "/v1/embeddings", "POST"),
    ],
)
async def test_allow_lists_what_the_endpoint_takes(
    connect: Connect, method: str, path: str, allowed: str
) -> None:
    async with connect() as client:
        response = await client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed


async def test_readyz_answers_503_while_the_model_is_loading(connect: Connect) -> None:
    async with connect(FakeModel(card=None)) as client:
        response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "unavailable"


async def test_the_schema_lists_the_endpoints_that_exist(connect: Connect) -> None:
    async with connect() as client:
        schema = (await client.get("/openapi.json")).json()
        for path, operations in schema["paths"].items():
            for method in operations:
                response = await client.request(method, path.format(model="fake", version="1"))
                assert response.status_code not in (404, 405)
                assert str(response.status_code) in operations[method]["responses"]


def test_the_schema_is_a_valid_document_with_every_code() -> None:
    document = openapi((NATIVE, *DIALECTS))
    text = str(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text
    details = document["components"]["schemas"]["ErrorDetails"]["properties"]
    assert set(details["code"]["enum"]) == {kind.code for kind in all_errors(RaylensError)}


def all_errors(kind: type[RaylensError]) -> list[type[RaylensError]]:
    return [kind, *(e for sub in kind.__subclasses__() for e in all_errors(sub))]


async def test_a_bug_outside_of_the_endpoints_is_an_internal_error_with_its_cause_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def __init__(self, app: ASGIApp) -> None:
            pass

        async def __call__(self, *_: object) -> None:
            raise ValueError("boom")

    app = Api(service()).app()
    app.add_middleware(Broken)
    transport = httpx.ASGITransport(app=Fence(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/livez")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "boom" not in response.text
    assert "ValueError: boom" in caplog.text
