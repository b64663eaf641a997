"""A body that is not a valid request is refused, and the answer says what it should be."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.api import bodies
from tests.api.conftest import Connect
from tests.api.requests import error, post
from tests.fakes import TEXT, FakeModel


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


async def test_an_image_needs_no_content_type(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        typed = await client.post(
            "/v1/embeddings", content=photo.read_bytes(), headers={"content-type": "image/jpeg"}
        )
        untyped = await client.post("/v1/embeddings", content=photo.read_bytes())
        s3 = await client.post(
            "/v1/embeddings",
            content=photo.read_bytes(),
            headers={"content-type": "binary/octet-stream"},
        )
        bare = await client.post("/v1/embeddings", content=b'{"input": {"path": "tom.jpg"}}')
    assert "content-type" not in untyped.request.headers
    for response in (untyped, s3, bare):
        assert response.json()["data"] == typed.json()["data"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is empty"),
        (b"--b\r\nContent-Disposition: form-data", "looks like a form"),
        ('{"input": "é"}'.encode("latin-1"), "not UTF-8"),
        ('{"input": "a"}'.encode("utf-16"), "not UTF-8"),
        (b'{"input": }', "line 1, column 11"),
    ],
)
async def test_what_is_not_json_is_told_what_it_looks_like(
    connect: Connect, body: bytes, message: str
) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=body, headers={"content-type": "application/json"}
        )
    assert response.status_code == 400
    assert message in error(response)["message"]


async def test_options_that_are_empty_or_null_are_as_good_as_none(
    connect: Connect, photo: Path
) -> None:
    names = ("model", "dimensions", "encoding_format", "dtype", "modality", "on_error", "truncate")
    item = {"path": "tom.jpg"}
    async with connect() as client:
        form = await client.post(
            "/v1/embeddings",
            data={**dict.fromkeys(names, ""), "normalize": " false "},
            files=[("file", photo.read_bytes())],
        )
        query = await client.post(
            "/v1/embeddings?normalize=false", json={"input": item, "normalize": None}
        )
        body = await client.post("/v1/embeddings", json={"input": item, "normalize": False})
    assert body.status_code == 200
    assert form.json()["data"] == query.json()["data"] == body.json()["data"]


@pytest.mark.parametrize(("value", "status"), [(12.0, 200), (12.5, 400), ("12", 400), (True, 400)])
async def test_a_whole_number_may_be_written_with_a_point(
    connect: Connect, photo: Path, value: Any, status: int
) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", json={"input": {"path": "tom.jpg"}, "dimensions": value}
        )
    assert response.status_code == status, response.text


@pytest.mark.parametrize("coding", ["utf-8", "none", "", "identity, identity", "binary"])
async def test_a_content_encoding_that_is_no_coding_means_nothing(
    connect: Connect, photo: Path, coding: str
) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=photo.read_bytes(), headers={"content-encoding": coding}
        )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "12:34:56 " * 60,
        "a," * 500,
        json.dumps({f"key {n}": "a, \\" for n in range(60)}),
    ],
    ids=["colons", "commas", "JSON"],
)
async def test_what_stands_in_texts_is_not_counted_as_values(connect: Connect, text: str) -> None:
    texts = [f"{n}: {text}" for n in range(2000)]
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post("/v1/embeddings", json={"input": texts})
    assert response.status_code == 200


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 5, 1000])
def test_escaped_quotes_and_backslashes_end_no_string(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(bodies, "COUNTED_BYTES", piece_bytes)
    texts = ["\\", '"', '\\"', '",":,\\\\', 'a\\",\\":"b', ""]
    body = json.dumps({"a": texts, **{text: [text, {}] for text in texts}}).encode()
    commas, colons = bodies.outside_strings(body)
    assert (commas, colons) == (5 + 6 + 6, 7)
    cut = json.dumps({"a, b:": 'c, d: "'})[:-2].encode()  # in the middle of a string
    assert bodies.outside_strings(cut) == (0, 1)
