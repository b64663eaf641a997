"""Cohere's embeddings: what its clients send, and the exact shapes that they read."""

from dataclasses import replace
from typing import Any

import numpy as np
import pybase64
import pytest

from deployments.api.render import quantised
from tests.api.colours import image
from tests.api.conftest import Connect
from tests.api.dialects.asking import post, vectors
from tests.fakes import CARD, TEXT, FakeModel

RED, GREEN = "a wall of #ff0000", "#00ff00"
RED_URI = "data:image/jpeg;base64," + image("#ff0000")["base64"]  # it is a PNG


async def test_texts_are_embedded_as_by_v1_embeddings(connect: Connect) -> None:
    texts = [RED, GREEN, "https://example.org/is-a-text-here.jpg"]
    body = await post(
        connect,
        "/v2/embed",
        {"model": "fake", "input_type": "search_document", "texts": texts},
    )
    expected = await vectors(connect, *({"text": text} for text in texts))
    np.testing.assert_array_equal(np.float32(body["embeddings"].pop("float")), expected)
    assert body.pop("id")
    assert body == {
        "response_type": "embeddings_by_type",
        "embeddings": {},
        "texts": texts,
        "images": [],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"images": 0, "input_tokens": 17 + 7 + 24},
            "warnings": ["Truncated to what the model reads: texts[2]."],
        },
    }


async def test_every_type_of_vector_is_that_of_the_same_floats(connect: Connect) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = {"texts": [RED, "noise"], "embedding_types": kinds}
    found = (await post(connect, "/v2/embed", body))["embeddings"]
    floats = await vectors(connect, RED, "noise")
    assert list(found) == kinds
    np.testing.assert_array_equal(np.float32(found["float"]), floats)
    assert found["int8"] == quantised(floats, "int8").tolist()
    assert found["uint8"] == (quantised(floats, "int8").astype(int) + 128).tolist()
    assert found["ubinary"] == np.packbits(floats > 0, axis=1).tolist()
    assert found["binary"] == (np.packbits(floats > 0, axis=1).astype(int) - 128).tolist()
    decoded = [np.frombuffer(pybase64.b64decode(row), "<f4") for row in found["base64"]]
    np.testing.assert_array_equal(decoded, floats)


async def test_version_1_has_bare_floats_unless_types_are_asked_for(connect: Connect) -> None:
    bare = await post(connect, "/v1/embed", {"texts": [RED]})
    typed = await post(connect, "/v1/embed", {"texts": [RED], "embedding_types": ["float"]})
    assert bare["response_type"] == "embeddings_floats"
    assert typed["response_type"] == "embeddings_by_type"
    assert typed["embeddings"] == {"float": bare["embeddings"]}
    assert bare["texts"] == typed["texts"] == [RED]
    assert bare["meta"]["api_version"] == typed["meta"]["api_version"] == {"version": "1"}


@pytest.mark.parametrize("version", [1, 2])
async def test_images_are_described_as_their_files_are(connect: Connect, version: int) -> None:
    body = {"input_type": "image", "images": [RED_URI], "embedding_types": ["float"]}
    answer = await post(connect, f"/v{version}/embed", body)
    expected = await vectors(connect, image("#ff0000"))
    np.testing.assert_array_equal(np.float32(answer["embeddings"]["float"]), expected)
    assert answer["texts"] == []
    assert answer["images"] == [{"width": 16, "height": 16, "format": "png", "bit_depth": 8}]
    assert answer["meta"]["billed_units"] == {"images": 1, "input_tokens": 0}


async def test_inputs_are_texts_and_images_with_one_part_each(connect: Connect) -> None:
    inputs = [
        {"content": [{"type": "image_url", "image_url": {"url": RED_URI}}]},
        {"content": [{"type": "text", "text": GREEN}]},
    ]
    answer = await post(connect, "/v2/embed", {"inputs": inputs})
    expected = await vectors(connect, image("#ff0000"), GREEN)
    np.testing.assert_array_equal(np.float32(answer["embeddings"]["float"]), expected)
    assert answer["texts"] == [GREEN]
    assert len(answer["images"]) == 1


async def test_an_image_and_a_text_have_no_vector_together(connect: Connect) -> None:
    parts = [{"type": "text", "text": GREEN}, {"type": "image_url", "image_url": {"url": RED_URI}}]
    body = {"inputs": [{"content": parts}]}
    answer = await post(connect, "/v2/embed", body, status=400)
    assert "exactly one part" in answer["message"]


async def test_content_that_is_null_is_absent_and_has_no_text_beside_it(connect: Connect) -> None:
    content = [{"type": "text", "text": RED}]
    expected = (await post(connect, "/v2/embed", {"inputs": [{"content": content}]}))["embeddings"]
    for absent in ({"content": None, "text": RED}, {"content": content, "text": None}):
        answer = await post(connect, "/v2/embed", {"inputs": [absent]})
        assert answer["embeddings"] == expected
    body = {"inputs": [{"content": content, "text": GREEN}]}
    answer = await post(connect, "/v2/embed", body, status=400)
    assert "text stands beside content" in answer["message"]


async def test_an_error_is_a_message(connect: Connect) -> None:
    answer = await post(connect, "/v2/embed", {"model": "embed-v4.0", "texts": ["a"]}, status=404)
    assert answer == {"message": answer["message"], "detail": answer["message"]}
    assert "GET /v1/models" in answer["message"]


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({}, 400, "exactly one of texts, images and inputs"),
        ({"texts": ["a"], "images": [RED_URI]}, 400, "exactly one of texts, images and inputs"),
        ({"texts": []}, 400, "texts is empty"),
        ({"texts": ["a"], "input_type": "query"}, 400, "input_type must be 'search_document'"),
        ({"texts": ["a"], "embedding_types": ["float16"]}, 400, "embedding_types[0] must be"),
        ({"texts": ["a"], "truncate": "START"}, 400, "truncated at their end only"),
        ({"texts": ["a"], "output_dimension": 8}, 400, "leave output_dimension out"),
        ({"texts": ["a"], "max_tokens": 8}, 400, "leave max_tokens out"),
        ({"texts": ["a" * 25], "truncate": "NONE"}, 413, "longer than the 24 tokens"),
        ({"images": ["data:image/png;base64,AAAA"]}, 415, "image"),
    ],
)
async def test_what_has_no_meaning_is_refused(
    connect: Connect, body: dict[str, Any], status: int, part: str
) -> None:
    for path in ("/v1/embed", "/v2/embed"):
        assert part in (await post(connect, path, body, status))["message"]


async def test_what_has_no_effect_is_ignored(connect: Connect) -> None:
    plain = await post(connect, "/v2/embed", {"texts": [RED]})
    body = {"priority": 3, "max_tokens": 512, "input_type": "clustering", "images": None}
    answer = await post(connect, "/v2/embed", {"texts": [RED], "embedding_types": [], **body})
    assert answer["embeddings"] == plain["embeddings"]


async def test_vectors_are_shortened_where_the_model_allows_it(connect: Connect) -> None:
    model = FakeModel(replace(CARD, matryoshka=True), text=TEXT)
    async with connect(model) as client:
        body = {"texts": ["noise"], "output_dimension": 8}
        answer = (await client.post("/v2/embed", json=body)).json()
        body = {"input": "noise", "dimensions": 8}
        expected = (await client.post("/v1/embeddings", json=body)).json()
    assert answer["embeddings"]["float"] == [expected["data"][0]["embedding"]]
