"""Text Embeddings Inference's endpoints: bodies, answers and errors as its clients know them."""

import base64
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.errors import DeadlineExceeded, Internal, Overloaded, RaylensError, Unavailable
from tests.api.conftest import Connect
from tests.api.requests import post
from tests.fakes import CARD, TEXT, FakeModel

RED, LONG = "a wall of #ff0000", "a sentence of more than 24 characters"


async def embed(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post("/embed", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(client: httpx.AsyncClient, **body: Any) -> tuple[int, str, str]:
    response = await client.post("/embed", json=body)
    found = response.json()
    assert found.keys() == {"error", "error_type"}
    return response.status_code, found["error_type"], found["error"]


async def vectors(client: httpx.AsyncClient, items: Any, **options: Any) -> list[list[float]]:
    answer = await post(client, input=items, **options)
    return [row["embedding"] for row in answer.json()["data"]]


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_texts_are_answered_with_a_bare_list_of_vectors(connect: Connect, path: str) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        many = await client.post(path, json={"inputs": [RED, "b"]})
        one = await client.post(path, json={"inputs": RED})
        assert many.json() == await vectors(client, [RED, "b"])
        assert one.json() == await vectors(client, [RED])


async def test_a_data_uri_is_an_image(connect: Connect, photo: Path) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    async with connect(FakeModel(text=TEXT)) as client:
        found = await embed(client, inputs=[uri, RED])
        assert found == await vectors(client, [{"path": photo.name}, RED])


async def test_null_means_the_default_and_prompt_names_are_ignored(connect: Connect) -> None:
    options = dict.fromkeys(["normalize", "truncate", "truncation_direction", "dimensions"])
    async with connect(FakeModel(text=TEXT)) as client:
        found = await embed(client, inputs=RED, **options, prompt_name="query")
        assert found == await vectors(client, [RED])


async def test_vectors_may_be_left_as_they_are(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        found = await embed(client, inputs=["some text"], normalize=False)
        assert found == await vectors(client, ["some text"], normalize=False)
        assert abs(float(np.linalg.norm(found)) - 1) > 0.1


async def test_dimensions_shorten_the_vectors_of_models_that_allow_it(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        assert (await refused(client, inputs=RED, dimensions=4))[:2] == (400, "Validation")
        assert await embed(client, inputs=RED, dimensions=12) == await vectors(client, [RED])


async def test_long_texts_are_refused_unless_they_may_be_truncated(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        assert (await refused(client, inputs=[LONG]))[:2] == (413, "Validation")
        for direction in ("Right", "right"):
            found = await embed(
                client, inputs=[LONG], truncate=True, truncation_direction=direction
            )
            assert found == await vectors(client, [LONG])


@pytest.mark.parametrize("direction", ["Left", "left"])
async def test_texts_are_not_truncated_at_their_beginning(connect: Connect, direction: str) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        asked = {"inputs": RED, "truncation_direction": direction}
        status, kind, message = await refused(client, **asked, truncate=True)
        assert (status, kind) == (400, "Validation")
        assert "at their end only" in message
        assert await embed(client, **asked) == await vectors(client, [RED])  # has no effect


async def test_each_error_has_its_type(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        assert (await refused(client, inputs=[]))[:2] == (400, "Empty")
        assert (await refused(client))[:2] == (400, "Validation")
        assert (await refused(client, inputs=[[1, 2, 3]]))[:2] == (400, "Validation")
        assert (await refused(client, inputs=RED, truncation_direction="Up"))[0] == 400
        broken = "data:image/png;base64,iVBORw0KGgo="
        assert (await refused(client, inputs=[broken]))[:2] == (422, "Tokenizer")
        assert (await refused(client, inputs=RED, model="other"))[:2] == (404, "Validation")
        assert (await client.put("/embed")).json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Internal("It broke."), 424, "Backend"),
        (Overloaded("Too much."), 429, "Overloaded"),
        (Unavailable("Not yet."), 503, "Unhealthy"),
        (DeadlineExceeded("Too late."), 504, "Backend"),
    ],
)
async def test_what_the_model_raises_has_a_type_too(
    connect: Connect, error: RaylensError, status: int, kind: str
) -> None:
    model = FakeModel(text=TEXT)
    model.error = error
    async with connect(model) as client:
        assert await refused(client, inputs=RED) == (status, kind, error.message)


async def test_info_has_all_fields(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        found = (await client.get("/info")).json()
    assert found == {
        "model_id": "fake",
        "model_sha": "r1",
        "model_dtype": "float32",
        "served_model_name": "fake",
        "model_type": {"embedding": {"pooling": "auto"}},
        "max_concurrent_requests": 4096,
        "max_input_length": 24,
        "max_batch_tokens": 24 * 8,
        "max_batch_requests": 8,
        "max_client_batch_size": 2048,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": version("raylens"),
        "sha": None,
        "docker_label": None,
    }


async def test_info_of_a_model_without_texts_has_no_tokens(connect: Connect) -> None:
    async with connect(FakeModel(CARD)) as client:
        assert (await client.get("/info")).json()["max_input_length"] == 0


async def test_health_is_that_of_the_model(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        healthy = await client.get("/health")
        assert (healthy.status_code, healthy.content) == (200, b"")
    async with connect(FakeModel(None)) as client:
        loading = await client.get("/health")
        assert (loading.status_code, loading.json()["error_type"]) == (503, "Unhealthy")


async def test_health_needs_no_key_and_the_rest_says_so_in_its_own_words(connect: Connect) -> None:
    keys = [{"name": "a", "sha256": "0" * 64}]
    async with connect(FakeModel(text=TEXT), auth={"keys": keys}) as client:
        assert (await client.get("/health")).status_code == 200
        refusal = await client.get("/info")
        assert refusal.status_code == 401
        assert refusal.json().keys() == {"error", "error_type"}
