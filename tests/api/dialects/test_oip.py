"""The Open Inference Protocol in JSON: health, metadata, tensors and errors."""

import base64
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import Connect
from tests.api.dialects.tensors import URL, output, tensor
from tests.api.requests import post
from tests.fakes import CARD, TEXT, FakeModel

RED = "a wall of #ff0000"
TEXT_TENSOR = tensor("text", 1, data=[RED])


async def refused(client: httpx.AsyncClient, body: Any, url: str = URL) -> tuple[int, str]:
    response = await client.post(url, json=body)
    found = response.json()
    assert found.keys() == {"error"}
    return response.status_code, found["error"]


async def vectors(client: httpx.AsyncClient, items: Any) -> np.ndarray[Any, Any]:
    answer = await post(client, input=items)
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


async def test_health_and_metadata_are_as_the_protocol_has_them(connect: Connect) -> None:
    expected = {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2": {
            "name": "raylens",
            "version": version("raylens"),
            "extensions": ["binary_tensor_data"],
        },
        "/v2/models/fake/ready": {"name": "fake", "ready": True},
        "/v2/models/fake": {
            "name": "fake",
            "versions": ["1"],
            "platform": "raylens_openvino",
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
                {"name": "text", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 12]}],
        },
    }
    async with connect(FakeModel(text=TEXT)) as client:
        assert {path: (await client.get(path)).json() for path in expected} == expected


async def test_a_model_that_is_loading_is_live_and_not_ready(connect: Connect) -> None:
    async with connect(FakeModel(None)) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/loading/ready", "/v2/models/loading"):
            response = await client.get(path)
            assert response.status_code == 503
            assert response.json().keys() == {"error"}


async def test_only_health_needs_no_key(connect: Connect) -> None:
    keys = [{"name": "a", "sha256": "0" * 64}]
    async with connect(FakeModel(text=TEXT), auth={"keys": keys}) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert (await refused(client, {"inputs": [TEXT_TENSOR]}))[0] == 401
        assert (await client.get("/v2/models/fake/ready")).status_code == 401


async def test_images_come_as_base64_urls_or_data_uris(connect: Connect, photo: Path) -> None:
    data = base64.b64encode(photo.read_bytes()).decode()
    elements = [data, f"data:image/png;base64,{data}"]
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(URL, json={"inputs": [tensor("image", 2, data=elements)]})
        assert np.array_equal(output(response), await vectors(client, [{"path": photo.name}] * 2))
        status, message = await refused(client, {"inputs": [tensor("image", 1, data=["http://["])]})
        as_url = await post(client, input={"url": "http://["})
    assert (status, message) == (as_url.status_code, f"image[0]: {as_url.json()['message']}")


async def test_texts_are_texts_whatever_they_look_like(connect: Connect) -> None:
    texts = [RED, "http://example.org/a.jpg"]
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(URL, json={"inputs": [tensor("text", 2, data=texts)]})
        expected = await vectors(client, [{"text": text} for text in texts])
    assert np.array_equal(output(response), expected)


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]], [["a", "b"]]])
async def test_a_tensor_may_be_a_column_and_its_data_nested(
    connect: Connect, data: list[Any]
) -> None:
    column = {**tensor("text", 2, data=data), "shape": [2, 1]}
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(URL, json={"inputs": [column]})
        assert np.array_equal(output(response), await vectors(client, ["a", "b"]))


async def test_the_id_comes_back_or_is_the_requests(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        given = await client.post(URL, json={"id": "42", "inputs": [TEXT_TENSOR]})
        missing = await client.post(URL, json={"id": None, "inputs": [TEXT_TENSOR]})
    assert given.json().keys() == {"model_name", "id", "outputs"}
    assert (given.json()["model_name"], given.json()["id"]) == ("fake", "42")
    assert missing.json()["id"] == missing.headers["x-request-id"]


async def test_a_models_id_may_have_slashes_and_a_version_may_follow(connect: Connect) -> None:
    card = replace(CARD, id="openai/clip-vit")
    async with connect(FakeModel(card, text=TEXT)) as client:
        for name in ("openai/clip-vit", "openai%2Fclip-vit"):
            for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
                assert (await client.get(path)).json()["name"] == card.id
                assert (await client.get(f"{path}/ready")).json()["ready"] is True
                response = await client.post(f"{path}/infer", json={"inputs": [TEXT_TENSOR]})
                assert output(response).shape == (1, 12)


async def test_unknown_models_and_versions_are_refused(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        for path in ("/v2/models/other", "/v2/models/fake/versions/2", "/v2/models/fake/config"):
            for response in (await client.get(path), await client.get(f"{path}/ready")):
                assert response.status_code == 404
                assert response.json().keys() == {"error"}
            assert (await refused(client, {"inputs": [TEXT_TENSOR]}, f"{path}/infer"))[0] == 404
        assert "one version, 1" in (await client.get("/v2/models/fake/versions/2")).json()["error"]
        # Which Starlette's own `path` does not match.
        odd = await client.get("/v2/models/a%0A/ready")
        assert (odd.status_code, odd.json().keys()) == (404, {"error"})


async def test_a_model_without_texts_has_no_such_input(connect: Connect) -> None:
    async with connect(FakeModel()) as client:
        inputs = (await client.get("/v2/models/fake")).json()["inputs"]
        assert [found["name"] for found in inputs] == ["image"]
        assert (await refused(client, {"inputs": [TEXT_TENSOR]}))[0] == 400


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "one input, image or text"),
        ([TEXT_TENSOR, tensor("image", 1, data=["x"])], "one input, image or text"),
        ([TEXT_TENSOR, TEXT_TENSOR], "one input, image or text"),
        ([tensor("pixels", 1, data=["x"])], "one input, image or text"),
        ([{**TEXT_TENSOR, "datatype": "FP32"}], "datatype BYTES"),
        ([{**TEXT_TENSOR, "shape": [1, 2]}], "shape [n] or [n, 1]"),
        ([{**TEXT_TENSOR, "shape": [1, 1, 1]}], "shape [n] or [n, 1]"),
        ([{**TEXT_TENSOR, "shape": []}], "shape [n] or [n, 1]"),
        ([{**TEXT_TENSOR, "shape": [-1]}], "shape [n] or [n, 1]"),
        ([{**TEXT_TENSOR, "shape": ["1"]}], "inputs[0].shape[0] must be a whole number"),
        ([{**TEXT_TENSOR, "shape": [3]}], "1 elements, and by its shape 3"),
        ([tensor("text", 0, data=[])], "text is empty"),
        ([tensor("text", 1)], "either data, or binary_data_size"),
        ([tensor("text", 1, 5, data=["x"])], "either data, or binary_data_size"),
        ([tensor("text", 1, 5)], "Inference-Header-Content-Length"),
        ([tensor("text", 1, -5)], "binary_data_size must be at least 0"),
        ([tensor("text", 1, data=[5])], "are strings"),
        ([tensor("image", 1, data=[{"path": "tom.jpg"}])], "are strings"),
        ([5], "inputs[0]"),
        (None, "inputs is missing"),
        ("text", "inputs must be a list"),
    ],
)
async def test_other_tensors_are_refused_with_a_reason(
    connect: Connect, inputs: Any, message: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        status, found = await refused(client, {"inputs": inputs})
    assert status == 400
    assert message in found


@pytest.mark.parametrize("number", [2049, 2**63, 1e300])
async def test_a_shape_beyond_the_limit_is_refused_by_itself(
    connect: Connect, number: float
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        body = {"inputs": [{**TEXT_TENSOR, "shape": [number]}]}
        status, message = await refused(client, body)
    assert status == 413
    assert "2048" in message


@pytest.mark.parametrize(
    "output",
    [
        {"name": "logits"},
        {"name": "embedding", "parameters": {"classification": 2}},
        {"name": "embedding", "parameters": {"shared_memory_region": "a"}},
    ],
)
async def test_outputs_that_are_not_to_be_had_are_refused(
    connect: Connect, output: dict[str, Any]
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        status, _ = await refused(client, {"inputs": [TEXT_TENSOR], "outputs": [output]})
    assert status == 400
