"""Voyage's multimodal embeddings: what its client sends, and the exact shapes that it reads."""

from typing import Any

import numpy as np
import pybase64
import pytest

from deployments.api.render import quantised
from tests.api.colours import image
from tests.api.conftest import Connect
from tests.api.dialects.asking import post, vectors

PATH = "/v1/multimodalembeddings"
RED = "a wall of #ff0000"
RED_URI = "data:image/webp;base64," + image("#ff0000")["base64"]  # it is a PNG


def inputs(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"content": [part]} for part in parts]


TEXT_PART = {"type": "text", "text": RED}
BASE64_PART = {"type": "image_base64", "image_base64": RED_URI}
URL_PART = {"type": "image_url", "image_url": RED_URI}


async def test_null_and_a_missing_type_mean_absent(connect: Connect) -> None:
    part = {"image_base64": RED_URI, "text": None, "type": None}
    answer = await post(connect, PATH, {"inputs": [{"content": None, **part}]})
    expected = await post(connect, PATH, {"inputs": inputs(BASE64_PART)})
    assert answer == expected


async def test_texts_and_images_are_embedded_as_by_v1_embeddings(connect: Connect) -> None:
    body = {"model": "fake", "inputs": inputs(TEXT_PART, BASE64_PART, URL_PART)}
    answer = await post(connect, PATH, {**body, "input_type": "query", "truncation": True})
    expected = await vectors(connect, RED, image("#ff0000"), image("#ff0000"))
    found = [row.pop("embedding") for row in answer["data"]]
    np.testing.assert_array_equal(np.array(found, np.float32), expected)
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": index} for index in range(3)],
        "model": "fake",
        "usage": {
            "text_tokens": 17,
            "image_pixels": 2 * 16 * 16,
            "video_pixels": 0,
            "total_tokens": 17,
        },
    }


@pytest.mark.parametrize("kind", ["float", "int8", "uint8", "binary", "ubinary"])
async def test_base64_has_the_bytes_of_the_type_that_is_asked_for(
    connect: Connect, kind: Any
) -> None:
    body = {"inputs": inputs(TEXT_PART, {"type": "text", "text": "noise"}), "output_dtype": kind}
    numbers = [row["embedding"] for row in (await post(connect, PATH, body))["data"]]
    answer = await post(connect, PATH, {**body, "encoding_format": "base64"})
    expected = quantised(
        await vectors(connect, RED, "noise"), "float32" if kind == "float" else kind
    )
    np.testing.assert_array_equal(np.array(numbers, expected.dtype), expected)
    for row, array in zip(answer["data"], expected, strict=True):
        assert pybase64.b64decode(row["embedding"]) == array.tobytes()


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({}, 400, "inputs is missing"),
        ({"inputs": []}, 400, "inputs is empty"),
        ({"inputs": inputs(TEXT_PART), "input_type": "image"}, 400, "input_type must be 'query'"),
        ({"inputs": inputs(TEXT_PART), "output_dtype": "float16"}, 400, "output_dtype must be"),
        ({"inputs": inputs(TEXT_PART), "encoding_format": "float"}, 400, "encoding_format must"),
        ({"inputs": inputs(TEXT_PART), "output_dimension": 8}, 400, "leave output_dimension out"),
        ({"inputs": [{"content": [TEXT_PART, URL_PART]}]}, 400, "exactly one part"),
        ({"inputs": [{"content": []}]}, 400, "exactly one part"),
        (
            {"inputs": inputs({"type": "video_url", "video_url": "https://example.org/a.mp4"})},
            400,
            "An item has exactly one of the keys",
        ),
        ({"inputs": inputs({"type": "image_base64", "image_base64": 7})}, 400, "must be a string"),
        ({"inputs": inputs({"text": "a", **BASE64_PART})}, 400, "image_base64 stands alone"),
        ({"inputs": inputs({**BASE64_PART, "type": "text"})}, 400, "image_base64 stands alone"),
        ({"inputs": [{"content": [TEXT_PART], **BASE64_PART}]}, 400, "beside content"),
        (
            {"inputs": inputs({"type": "text", "text": "a" * 25}), "truncation": False},
            413,
            "longer than the 24 tokens",
        ),
        ({"inputs": inputs(TEXT_PART), "model": "voyage-multimodal-3"}, 404, "GET /v1/models"),
    ],
)
async def test_what_has_no_meaning_is_refused_with_a_detail(
    connect: Connect, body: dict[str, Any], status: int, part: str
) -> None:
    answer = await post(connect, PATH, body, status)
    assert list(answer) == ["detail"]
    assert part in answer["detail"]
