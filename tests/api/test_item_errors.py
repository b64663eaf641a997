"""Errors are reported by code, and the items that caused them by index."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.api.conftest import Connect
from tests.api.requests import b64, error, post
from tests.conftest import Jpeg
from tests.fakes import FakeModel


async def test_a_bad_item_fails_the_request_with_its_status_and_names_all_bad_items(
    connect: Connect, photo: Path
) -> None:
    items = [{"path": "tom.jpg"}, b64(photo.read_bytes()[:500]), 7, {"path": "gone.jpg"}]
    model = FakeModel()
    async with connect(model) as client:
        response = await post(client, input=items)
    assert response.status_code == 422
    body = error(response)
    assert body["code"] == "corrupt_image"
    assert body["type"] == "invalid_request_error"
    assert body["param"] == "input[1]"
    assert [(i["index"], i["code"]) for i in body["items"]] == [
        (1, "corrupt_image"),
        (2, "invalid_item"),
        (3, "path_not_found"),
    ]
    assert model.stacks == []  # no work for a request that fails anyway


async def test_report_gives_good_items_their_vectors_and_bad_ones_their_errors(
    connect: Connect, photo: Path
) -> None:
    items = [{"path": "gone.jpg"}, {"path": "tom.jpg"}, {"text": "a cat"}]
    async with connect() as client:
        alone = (await post(client, input={"path": "tom.jpg"})).json()["data"][0]
        response = await post(client, input=items, on_error="report")
    assert response.status_code == 200
    first, second, third = response.json()["data"]
    assert first["object"] == third["object"] == "error"
    assert first["embedding"] is None
    assert first["error"]["code"] == "path_not_found"
    assert third["error"]["code"] == "text_unsupported"
    assert second["embedding"] == alone["embedding"]
    assert response.json()["usage"]["images"] == 1


async def test_report_with_nothing_good_is_still_a_200(connect: Connect) -> None:
    async with connect() as client:
        response = await post(client, input=[7, 8], on_error="report")
    assert response.status_code == 200
    assert [d["error"]["code"] for d in response.json()["data"]] == ["invalid_item"] * 2


async def test_a_lone_bad_item_is_called_input(connect: Connect) -> None:
    async with connect() as client:
        body = error(await post(client, input={"path": "gone.jpg"}))
        assert (body["code"], body["param"]) == ("path_not_found", "input")
        body = error(await client.post("/v1/embeddings", files={"file": b"not an image"}))
        assert (body["code"], body["param"]) == ("unsupported_image", "file[0]")


async def test_a_model_that_is_still_loading_is_unavailable(connect: Connect) -> None:
    async with connect(FakeModel(card=None)) as client:
        response = await post(client, input={"path": "tom.jpg"})
        assert response.status_code == 503
        assert error(response)["code"] == "unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/v1/models")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_an_unexpected_failure_reveals_no_details(connect: Connect, photo: Path) -> None:
    model = FakeModel()
    model.error = RuntimeError("secret /root/path 0x7f0000")
    async with connect(model) as client:
        response = await post(client, input={"path": "tom.jpg"})
    assert response.status_code == 500
    assert error(response)["code"] == "internal"
    assert "secret" not in response.text


async def test_a_vector_that_is_not_finite_is_an_error_of_its_item(
    connect: Connect, photo: Path, jpeg: Jpeg
) -> None:
    class Broken(FakeModel):
        async def embed(self, *call: Any) -> Any:
            answer = await super().embed(*call)
            answer.vectors[0, 3] = np.nan
            return answer

    async with connect(Broken()) as client:
        items = [{"path": "tom.jpg"}, b64(jpeg(5))]
        bad, good = (await post(client, input=items, on_error="report")).json()["data"]
    assert bad["error"]["code"] == "internal"
    assert good["object"] == "embedding"
