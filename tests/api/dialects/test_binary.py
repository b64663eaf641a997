"""Triton's binary tensors, in both directions, and whatever is wrong with them."""

import base64
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.conftest import Connect
from tests.api.dialects.tensors import LENGTH, URL, output, packed, send, tensor
from tests.api.dialects.test_oip import vectors
from tests.fakes import TEXT, FakeModel

RED = "a wall of #ff0000"
TEXTS = packed(RED.encode(), "naïve".encode(), b"")


async def test_texts_are_utf8_behind_the_json(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": [tensor("text", 3, len(TEXTS))]}, TEXTS)
        assert np.array_equal(output(response), await vectors(client, [RED, "naïve", ""]))


async def test_images_are_files_or_whatever_json_may_have(connect: Connect, photo: Path) -> None:
    raw = photo.read_bytes()
    uri = b"data:image/png;base64," + base64.b64encode(raw)
    data = packed(raw, base64.b64encode(raw), uri)
    column = {**tensor("image", 3, len(data)), "shape": [3, 1]}
    async with connect(FakeModel()) as client:
        response = await send(client, {"inputs": [column]}, data)
        assert np.array_equal(output(response), await vectors(client, [{"path": photo.name}] * 3))


@pytest.mark.parametrize(
    ("asked", "is_binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"parameters": {"binary_data_output": False}}, False),
        ({"outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]}, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "embedding", "parameters": {"binary_data": False}}],
            },
            False,
        ),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "embedding"}]}, True),
        ({"parameters": {"binary_data_output": None, "priority": 3}, "outputs": None}, False),
    ],
)
async def test_the_output_is_binary_if_it_is_asked_for(
    connect: Connect, asked: dict[str, Any], is_binary: bool
) -> None:
    body = {"inputs": [tensor("text", 1, data=[RED])], **asked}
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(URL, json=body)
        assert (LENGTH in response.headers) == is_binary
        assert np.array_equal(output(response), await vectors(client, [RED]))


async def test_binary_input_alone_is_answered_in_json(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": [tensor("text", 3, len(TEXTS))]}, TEXTS)
    assert LENGTH not in response.headers


@pytest.mark.parametrize(
    ("number", "size", "data", "message"),
    [
        (3, len(TEXTS) + 1, TEXTS, f"binary_data_size is {len(TEXTS) + 1}, but {len(TEXTS)} bytes"),
        (3, 0, TEXTS, "binary_data_size is 0"),
        (3, 2**70, TEXTS, "binary_data_size is"),
        (3, -1, TEXTS, "binary_data_size must be at least 0"),
        (2, len(TEXTS), TEXTS, "4 bytes follow the last element"),
        (4, len(TEXTS), TEXTS, "end within its element 3"),
        (1, 2, b"\1\0", "end within its element 0"),
        (1, 5, b"\2\0\0\0a", "end within its element 0"),
        (1, 5, b"\xff\xff\xff\xffa", "end within its element 0"),
        (1, 0, b"", "end within its element 0"),
        (0, 0, b"", "text is empty"),
        (1, 5, packed(b"\xff"), "must be UTF-8"),
    ],
)
async def test_bytes_that_do_not_add_up_are_refused(
    connect: Connect, number: int, size: int, data: bytes, message: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": [tensor("text", number, size)]}, data)
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert message in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "1e3", "", "99999", "9" * 5000, "0x10", "٣", "1, 1"])
async def test_a_header_that_is_no_length_of_the_body_is_refused(
    connect: Connect, length: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": []}, b"", length.encode())
    assert response.status_code == 400
    assert "must be the length of the JSON" in response.json()["error"]


@pytest.mark.parametrize("length", ["0", "5"])
async def test_a_header_that_cuts_the_json_short_is_refused(connect: Connect, length: str) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": []}, b"", length)
    assert response.status_code == 400


async def test_bytes_that_no_input_claims_are_refused(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": [tensor("text", 1, data=[RED])]}, b"more")
    assert response.status_code == 400
    assert "Bytes follow the JSON" in response.json()["error"]


async def test_more_elements_than_the_limit_are_refused_unread(connect: Connect) -> None:
    data = bytes(4 * 100_000)  # so many empty texts
    async with connect(FakeModel(text=TEXT)) as client:
        response = await send(client, {"inputs": [tensor("text", 100_000, len(data))]}, data)
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("element", "status"), [(b"\0\1\2\xff", 415), (b"\xff\xd8\xff\xe0", 422), (b"#", 400)]
)
async def test_bytes_of_no_image_are_refused_as_such(
    connect: Connect, element: bytes, status: int
) -> None:
    data = packed(element)
    async with connect(FakeModel()) as client:
        response = await send(client, {"inputs": [tensor("image", 1, len(data))]}, data)
    assert response.status_code == status


async def test_noise_is_never_more_than_refused(connect: Connect) -> None:
    random_bytes = random.Random(7).randbytes
    async with connect(FakeModel(text=TEXT)) as client:
        for name in ("image", "text"):
            for size in range(40):
                body = {"inputs": [tensor(name, 1 + size % 3, size)]}
                response = await send(client, body, random_bytes(size))
                assert 400 <= response.status_code < 500
        for size in range(40):
            response = await client.post(URL, content=random_bytes(size), headers={LENGTH: "9"})
            assert response.status_code == 400
