"""A body that is not a valid request is refused, and the answer says what it should be."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Connect
from tests.api.requests import error, post


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "bad_request", "input"),
        ({"input": []}, "bad_request", "input"),
        ({"input": "AAAA", "encoding_format": "hex"}, "bad_request", "encoding_format"),
        ({"input": "AAAA", "dtype": "int4"}, "bad_request", "dtype"),
        ({"input": "AAAA", "normalize": "yes"}, "bad_request", "normalize"),
        ({"input": "AAAA", "dimensions": "12"}, "bad_request", "dimensions"),
        ({"input": "AAAA", "on_error": "ignore"}, "bad_request", "on_error"),
        ({"input": "AAAA", "modality": "audio"}, "bad_request", "modality"),
        ({"input": 7}, "invalid_item", "input"),
        ({"input": [[1, 2]]}, "invalid_item", "input[0]"),
        ({"input": "AAAA"}, "text_unsupported", "input"),
        ({"input": {"base64": ""}}, "bad_base64", "input"),
        ({"input": {"base64": "A.A"}}, "bad_base64", "input"),
        ({"input": "data:image/png,AAAA"}, "bad_base64", "input"),
        ({"input": {"url": "ftp://example.org/a.jpg"}}, "bad_url", "input"),
        ({"input": {"url": "data:image/png;base64,AAAA"}}, "bad_url", "input"),
        ({"input": "AAAA", "modality": "image"}, "unsupported_image", "input"),
        ({"input": {"path": "tom.jpg"}, "model": "other"}, "model_not_found", "model"),
        ({"input": {"path": "../tom.jpg"}}, "path_not_found", "input"),
        ({"input": {"path": "/etc/passwd"}}, "path_not_found", "input"),
    ],
)
async def test_bad_input_is_refused_with_its_code_and_param(
    connect: Connect, photo: Path, body: dict[str, Any], code: str, param: str
) -> None:
    async with connect() as client:
        response = await post(client, **body)
    assert (error(response)["code"], error(response)["param"]) == (code, param)


async def test_null_means_the_default(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        body = {"dimensions": None, "model": None, "encoding_format": None, "user": None}
        response = await post(client, input={"path": "tom.jpg"}, **body)
    assert response.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b"\xff", b"[" * 100_000])
async def test_what_is_not_a_json_object_is_a_bad_request(connect: Connect, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    async with connect() as client:
        response = await client.post("/v1/embeddings", content=body, headers=headers)
    assert error(response)["code"] == "bad_request"


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("text/plain", "unsupported_media_type"),
        ("application/x-www-form-urlencoded", "unsupported_media_type"),
        ("multipart/form-data", "bad_request"),
        ("multipart/form-data; boundary=x", "bad_request"),
    ],
)
async def test_other_content_types_are_refused(
    connect: Connect, content_type: str, code: str
) -> None:
    headers = {"content-type": content_type}
    async with connect() as client:
        response = await client.post("/v1/embeddings", content=b"hello", headers=headers)
    assert error(response)["code"] == code


async def test_compressed_bodies_are_refused_and_byte_order_marks_are_not(
    connect: Connect, photo: Path
) -> None:
    body = b'\xef\xbb\xbf{"input": {"path": "tom.jpg"}}'
    headers = {"content-type": "application/json"}
    async with connect() as client:
        marked = await client.post("/v1/embeddings", content=body, headers=headers)
        headers["content-encoding"] = "gzip"
        zipped = await client.post("/v1/embeddings", content=body, headers=headers)
    assert marked.status_code == 200
    assert error(zipped)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "input is missing."),
        (
            {"input": "x", "dtype": "int4"},
            "dtype must be 'float32', 'float16', 'int8' or 'ubinary'.",
        ),
        ({"input": "x", "dimensions": 0}, "dimensions must be at least 1."),
        ({"input": "x", "normalize": 1}, "normalize must be true or false."),
        ({"input": "x", "model": 7}, "model must be a string."),
    ],
)
async def test_a_bad_request_says_what_the_key_must_be(
    connect: Connect, body: dict[str, Any], message: str
) -> None:
    async with connect() as client:
        assert error(await post(client, **body))["message"] == message
