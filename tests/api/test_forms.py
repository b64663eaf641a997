"""Files in forms, whole or cut short, and forms that are made to be expensive."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Connect
from tests.api.requests import error
from tests.conftest import Jpeg


async def test_form_fields_and_query_strings_carry_the_options(
    connect: Connect, photo: Path, jpeg: Jpeg
) -> None:
    data = photo.read_bytes()
    async with connect() as client:
        form = {"normalize": "false", "encoding_format": "float", "on_error": "report"}
        files = [("file", data), ("file", b"bad"), ("file", jpeg(2))]
        response = await client.post("/v1/embeddings", data=form, files=files)
        one, bad, two = response.json()["data"]
        raw = await client.post(
            "/v1/embeddings?normalize=false&encoding_format=float",
            content=data,
            headers={"content-type": "application/octet-stream"},
        )
        wrong = await client.post(
            "/v1/embeddings?dtype=int4", content=data, headers={"content-type": "image/jpeg"}
        )
    assert bad["error"]["code"] == "unsupported_image"
    assert one["embedding"] == raw.json()["data"][0]["embedding"] != two["embedding"]
    assert error(wrong)["param"] == "dtype"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("normalize=false", {"normalized": True}),
        ("normalize=false", {"use_activation": True}),
        ("dtype=int8", {"embedding_type": "binary"}),
        ("dtype=int8", {"output_dtype": "ubinary"}),
        ("dtype=int8", {"embed_dtype": "float16"}),
        ("dimensions=1", {"output_dimension": 12}),
    ],
)
async def test_what_the_body_says_in_whatever_words_wins_over_the_query(
    connect: Connect, photo: Path, query: str, body: dict[str, Any]
) -> None:
    body = {"input": {"path": photo.name}, **body}
    async with connect() as client:
        alone = await client.post("/v1/embeddings", json=body)
        both = await client.post(f"/v1/embeddings?{query}", json=body)
    assert alone.status_code == both.status_code == 200
    assert alone.json()["data"] == both.json()["data"]


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("output_dtype", "int8", " only; send dtype instead."),
        ("embedding_type", "ubinary", " only; send dtype instead."),
        ("embed_dtype", "float16", " only; send dtype instead."),
        ("output_dimension", "4", " only; send dimensions instead."),
        ("normalized", "false", " only; send normalize instead."),
        ("use_activation", "false", " only; send normalize instead."),
        ("truncation", "false", " only; send truncate instead."),
        ("truncate_prompt_tokens", "8", " only."),
        ("return_multivector", "true", " only."),
    ],
)
async def test_others_words_outside_json_are_refused_with_raylens_own(
    connect: Connect, photo: Path, name: str, value: str, advice: str
) -> None:
    data, options = photo.read_bytes(), {name: value}
    url, raw = "/v1/embeddings", {"content-type": "image/jpeg"}
    async with connect() as client:
        refusals = [
            await client.post(url, params=options, content=data, headers=raw),
            await client.post(url, params=options, json={"input": {"path": photo.name}}),
            await client.post(url, params=options, files={"file": data}),
            await client.post(url, data=options, files={"file": data}),
        ]
        blank = await client.post(url, data={name: " "}, files={"file": data})
    for refused in refusals:
        assert refused.status_code == 400
        assert error(refused)["param"] == name
        assert error(refused)["message"] == f"{name} is read from JSON bodies{advice}"
    assert blank.status_code == 200  # a form's field that nobody filled in


def multipart(*files: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in files) + b"--b--\r\n"


async def test_a_form_cut_short_is_refused_rather_than_losing_a_file(
    connect: Connect, photo: Path
) -> None:
    whole = multipart(photo.read_bytes(), photo.read_bytes())
    headers = {"content-type": "multipart/form-data; boundary=b"}
    second = whole.rfind(b"--b\r\n")
    async with connect() as client:
        for body, status in (
            (whole, 200),
            (whole + b"an epilogue, which RFC 2046 allows", 200),
            (whole[: second + 2], 400),
            (whole[:-200], 400),
            (whole[:-4], 400),
        ):
            response = await client.post("/v1/embeddings", content=body, headers=headers)
            assert response.status_code == status, response.text
            if status == 200:
                assert len(response.json()["data"]) == 2


@pytest.mark.parametrize(
    "head",
    [
        "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%E7%8C%AB.jpg",
        'Content-Disposition: form-data; name="file"\r\nContent-Type: image/jpeg',
        'Content-Disposition: form-data; name="file"',
    ],
)
async def test_a_file_needs_no_plain_file_name(connect: Connect, photo: Path, head: str) -> None:
    body = f"--b\r\n{head}\r\n\r\n".encode() + photo.read_bytes() + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with connect() as client:
        response = await client.post("/v1/embeddings", content=body, headers=headers)
    assert response.status_code == 200, response.text


async def test_a_form_with_too_many_fields_says_so(connect: Connect, photo: Path) -> None:
    fields = {f"f{i}": "x" for i in range(40)}
    async with connect() as client:
        response = await client.post("/v1/embeddings", data=fields, files={"file": b"x"})
    assert "32 fields" in error(response)["message"]


async def test_files_go_into_fields_named_file(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        other = await client.post("/v1/embeddings", files={"image": photo.read_bytes()})
        text = await client.post("/v1/embeddings", data={"file": "x"}, files={"a": b""})
    assert error(other)["code"] == error(text)["code"] == "bad_request"


async def test_a_form_in_a_charset_that_is_slow_to_decode_is_refused(connect: Connect) -> None:
    value = chr(0x10000).encode("punycode") + b"a" * 100_000
    body = b'--b\r\nContent-Disposition: form-data; name="u"\r\n\r\n' + value + b"\r\n--b--\r\n"
    began = time.monotonic()
    async with connect() as client:
        for charset in ("punycode", "idna", "utf-7", "unheard-of"):
            kind = f"multipart/form-data; boundary=b; charset={charset}"
            response = await client.post(
                "/v1/embeddings", content=body, headers={"Content-Type": kind}
            )
            assert response.status_code == 415
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "iso-8859-1"])
async def test_a_form_may_name_the_usual_charsets(
    connect: Connect, photo: Path, charset: str
) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + photo.read_bytes()
        + b"\r\n--b--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    async with connect() as client:
        response = await client.post("/v1/embeddings", content=body, headers=headers)
    assert response.status_code == 200


async def test_a_form_full_of_near_boundaries_does_not_block_the_loop(connect: Connect) -> None:
    part = b'--a\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    content = part + b"\r\n--ax" * 400_000 + b"\r\n--a--\r\n"
    longest = 0.0
    async with connect() as client:
        headers = {"Content-Type": "multipart/form-data; boundary=a"}
        task = asyncio.create_task(client.post("/v1/embeddings", content=content, headers=headers))
        while not task.done():
            began = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - began)
        assert (await task).status_code == 415
    assert longest < 0.3


@pytest.mark.parametrize("name", ["", '; filename=""'])
@pytest.mark.parametrize("kind", ["", "Content-Type: application/octet-stream\r\n"])
async def test_an_empty_file_input_of_a_page_is_no_file(
    connect: Connect, photo: Path, name: str, kind: str
) -> None:
    empty = f'--b\r\nContent-Disposition: form-data; name="file"{name}\r\n{kind}\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            content=empty.encode() + multipart(photo.read_bytes()),
            headers=headers,
        )
        none = await client.post("/v1/embeddings", content=f"{empty}--b--\r\n", headers=headers)
        nothing = await client.post("/v1/embeddings", content=multipart(b""), headers=headers)
    assert len(response.json()["data"]) == 1
    assert "has no file" in error(none)["message"]
    assert error(nothing)["code"] == "corrupt_image"


async def test_a_form_without_a_boundary_says_what_to_do(connect: Connect) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            content=multipart(b"x"),
            headers={"content-type": "multipart/form-data"},
        )
    assert "Leave the header to the client" in error(response)["message"]
