"""POST /v1/embeddings as its callers see it, with a fake model behind the real pipeline."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.api import render
from tests.api.conftest import Connect
from tests.fakes import CARD, TEXT, FakeModel

Jpeg = Callable[..., bytes]


def b64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body)


def error(response: httpx.Response) -> dict[str, Any]:
    content = response.json()["error"]
    assert content["request_id"] == response.headers["x-request-id"]
    assert isinstance(content, dict)
    return content


async def test_path_base64_data_uri_upload_and_raw_body_give_the_same_vector(
    connect: Connect, photo: Path
) -> None:
    data = photo.read_bytes()
    uri = f"data:image/jpeg;base64,{b64(data)['base64']}"
    inputs: list[Any] = [
        {"path": "tom.jpg"},
        {"path": str(photo)},
        b64(data),
        {"base64": uri},
        {"image": b64(data)["base64"]},
        {"type": "image_url", "image_url": {"url": uri}},
        uri,
    ]
    async with connect() as client:
        responses = [await post(client, input=item) for item in inputs]
        responses.append(await client.post("/v1/embeddings", files={"file": data}))
        headers = {"content-type": "image/jpeg"}
        responses.append(await client.post("/v1/embeddings", content=data, headers=headers))
    assert [r.status_code for r in responses] == [200] * 9
    vectors = [r.json()["data"][0]["embedding"] for r in responses]
    assert all(v == vectors[0] for v in vectors)
    assert len(vectors[0]) == 12
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)


async def test_the_answer_has_openais_shape(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        response = await post(client, input=[{"path": "tom.jpg"}], model="fake", user="u", foo=1)
    body = response.json()
    assert body["object"] == "list"
    assert body["model"] == "fake"
    assert body["data"][0].keys() == {"object", "index", "embedding"}
    assert body["usage"] == {
        "prompt_tokens": 0,
        "total_tokens": 0,
        "images": 1,
        "texts": 0,
        "cached": 0,
    }


async def test_data_has_the_order_and_length_of_input(connect: Connect, jpeg: Jpeg) -> None:
    items = [b64(jpeg(i)) for i in range(70)]
    model = FakeModel()
    async with connect(model) as client:
        together = (await post(client, input=items)).json()["data"]
        alone = [(await post(client, input=i)).json()["data"][0] for i in items[:3]]
    assert [d["index"] for d in together] == list(range(70))
    assert [d["embedding"] for d in together[:3]] == [d["embedding"] for d in alone]
    assert sorted(len(s) for s in model.stacks[:3]) == [6, 32, 32]
    assert len({tuple(d["embedding"]) for d in together}) == 70


async def test_duplicates_in_a_request_are_computed_once(connect: Connect, photo: Path) -> None:
    model = FakeModel()
    async with connect(model) as client:
        items = [{"path": "tom.jpg"}, b64(photo.read_bytes()), {"path": "tom.jpg"}]
        body = (await post(client, input=items)).json()
    assert body["usage"]["cached"] == 2
    assert body["usage"]["images"] == 3
    assert sum(len(s) for s in model.stacks) == 1
    assert body["data"][0]["embedding"] == body["data"][1]["embedding"]


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


async def test_base64_is_the_little_endian_array(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        floats = (await post(client, input=item)).json()["data"][0]["embedding"]
        for dtype, numpy_dtype in (("float32", "<f4"), ("float16", "<f2"), ("int8", "i1")):
            response = await post(client, input=item, encoding_format="base64", dtype=dtype)
            raw = base64.b64decode(response.json()["data"][0]["embedding"])
            got = np.frombuffer(raw, numpy_dtype).astype(np.float32)
            scale, tolerance = (127, 0.5) if dtype == "int8" else (1, 1e-3)
            assert got / scale == pytest.approx(floats, abs=tolerance / scale)


async def test_int8_is_rounded_and_ubinary_packs_signs_most_significant_first(
    connect: Connect, photo: Path
) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        floats = np.array((await post(client, input=item)).json()["data"][0]["embedding"])
        int8 = (await post(client, input=item, dtype="int8")).json()["data"][0]["embedding"]
        bits = (await post(client, input=item, dtype="ubinary")).json()["data"][0]["embedding"]
    assert int8 == np.rint(127 * floats).tolist()
    expected = "".join("1" if x > 0 else "0" for x in floats).ljust(16, "0")
    assert bits == [int(expected[:8], 2), int(expected[8:], 2)]


async def test_normalize_false_gives_the_models_own_length(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        raw = (await post(client, input={"path": "tom.jpg"}, normalize=False)).json()
        unit = (await post(client, input={"path": "tom.jpg"})).json()
        refused = await post(client, input={"path": "tom.jpg"}, normalize=False, dtype="int8")
    raw, unit = raw["data"][0]["embedding"], unit["data"][0]["embedding"]
    assert np.linalg.norm(raw) > 2
    assert np.array(raw) / np.linalg.norm(raw) == pytest.approx(unit)
    assert error(refused)["code"] == "bad_request"


async def test_npy_is_one_array_with_nan_rows_for_failures(connect: Connect, photo: Path) -> None:
    items = [{"path": "tom.jpg"}, {"path": "gone.jpg"}]
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            json={"input": items, "on_error": "report"},
            headers={"accept": "application/x-npy"},
        )
        alone = (await post(client, input=items[0])).json()["data"][0]["embedding"]
    assert response.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (2, 12)
    assert array.dtype == np.float32
    assert array[0] == pytest.approx(alone)
    assert np.isnan(array[1]).all()
    (item,) = json.loads(response.headers["x-item-errors"])
    assert (item["index"], item["code"]) == (1, "path_not_found")


@pytest.mark.parametrize(("dtype", "width"), [("int8", 12), ("ubinary", 2), ("float16", 12)])
async def test_npy_of_other_types(connect: Connect, photo: Path, dtype: str, width: int) -> None:
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings",
            json={"input": [7, {"path": "tom.jpg"}], "on_error": "report", "dtype": dtype},
            headers={"accept": "application/x-npy;q=0.9, application/json;q=0.5"},
        )
    array = np.load(io.BytesIO(response.content))
    assert array.shape == (2, width)
    assert array[1].any()
    if dtype == "float16":
        assert np.isnan(array[0]).all()
    else:
        assert not array[0].any()


async def test_many_item_errors_stay_within_what_clients_take_as_a_header(
    connect: Connect,
) -> None:
    async with connect() as client:
        for number, form in ((150, "codes"), (512, "indices")):
            response = await client.post(
                "/v1/embeddings",
                json={"input": [{"path": "gone.jpg"}] * number, "on_error": "report"},
                headers={"accept": "application/x-npy"},
            )
            header = response.headers["x-item-errors"]
            assert len(header) < 8190
            content = json.loads(header)
            if form == "codes":
                assert content[149] == {"index": 149, "code": "path_not_found"}
            else:
                assert content == [{"code": "path_not_found", "indices": list(range(512))}]
            assert np.load(io.BytesIO(response.content)).shape == (number, 12)


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        (None, 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/json", 200, "application/json"),
        ("application/*", 200, "application/json"),
        ("text/html, application/x-npy;q=0.1", 200, "application/x-npy"),
        ("application/x-npy, */*", 200, "application/x-npy"),
        ("application/json;q=0, */*", 200, "application/x-npy"),
        ("application/json;q=0.2, application/x-npy;q=0.3", 200, "application/x-npy"),
        ("application/x-npy", 200, "application/x-npy"),
        ("application/x-npy;q=0", 406, "application/json"),
        ("text/html", 406, "application/json"),
        ("application/json;q=soon", 406, "application/json"),
        ("application/json;q=nan", 406, "application/json"),
    ],
)
async def test_accept_chooses_the_answer(
    connect: Connect, photo: Path, accept: str | None, status: int, kind: str
) -> None:
    headers = {"accept": accept} if accept else {}
    async with connect() as client:
        if not accept:
            del client.headers["accept"]
        body = {"input": {"path": "tom.jpg"}}
        response = await client.post("/v1/embeddings", json=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == kind
    if status == 406:
        assert error(response)["code"] == "not_acceptable"


async def test_dimensions_need_a_matryoshka_model(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect() as client:
        assert (await post(client, input=item, dimensions=12)).status_code == 200
        body = error(await post(client, input=item, dimensions=6))
        assert (body["code"], body["param"]) == ("dimensions_unsupported", "dimensions")
        assert error(await post(client, input=item, dimensions=0))["code"] == "bad_request"


async def test_shortened_vectors_are_normalised_again(connect: Connect, photo: Path) -> None:
    item = {"path": "tom.jpg"}
    async with connect(FakeModel(replace(CARD, matryoshka=True))) as client:
        whole = np.array((await post(client, input=item)).json()["data"][0]["embedding"])
        response = await post(client, input=item, dimensions=6)
        short = np.array(response.json()["data"][0]["embedding"])
        too_long = await post(client, input=item, dimensions=13)
    assert short == pytest.approx(whole[:6] / np.linalg.norm(whole[:6]))
    assert error(too_long)["code"] == "dimensions_unsupported"


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
        ({"input": {"base64": "A A"}}, "bad_base64", "input"),
        ({"input": "data:image/png,AAAA"}, "bad_base64", "input"),
        ({"input": {"url": "ftp://example.org/a.jpg"}}, "bad_url", "input"),
        ({"input": {"url": "data:image/png;base64,AAAA"}}, "bad_url", "input"),
        ({"input": "AAAA", "modality": "image"}, "unsupported_image", "input"),
        ({"input": {"path": "tom.jpg"}, "model": "other"}, "model_not_found", "model"),
        ({"input": {"path": "../tom.jpg"}}, "path_not_found", "input"),
        ({"input": {"path": "/etc/passwd"}}, "path_not_found", "input"),
    ],
)
async def test_bad_input_gets_its_code(
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


def multipart(*files: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in files) + b"--b--\r\n"


async def test_a_form_that_is_cut_short_loses_no_file_in_silence(
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
    ],
)
async def test_a_file_needs_no_plain_file_name(connect: Connect, photo: Path, head: str) -> None:
    body = f"--b\r\n{head}\r\n\r\n".encode() + photo.read_bytes() + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with connect() as client:
        response = await client.post("/v1/embeddings", content=body, headers=headers)
    assert response.status_code == 200, response.text


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


async def test_the_limits_of_items_bodies_and_images(connect: Connect, jpeg: Jpeg) -> None:
    big, small = jpeg(1, (640, 480)), jpeg(2, (32, 24))
    limits = {"max_items": 2, "max_body_bytes": 60_000, "max_image_bytes": 5000}
    async with connect(limits={**limits, "max_image_pixels": 1000}) as client:
        many = await post(client, input=[b64(small)] * 3)
        files = await client.post("/v1/embeddings", files=[("file", small)] * 3)
        body = await post(client, input="x" * 60_000)

        async def chunks() -> Any:
            for _ in range(70):
                yield b"x" * 1000

        headers = {"content-type": "application/json"}
        chunked = await client.post("/v1/embeddings", content=chunks(), headers=headers)
        too_many_bytes = await post(client, input=b64(big))
        upload = await client.post("/v1/embeddings", files={"file": big})
        too_many_pixels = await post(client, input=b64(jpeg(3, (40, 30))))
        good = await post(client, input=b64(small))
    for response, code in (
        (many, "too_many_items"),
        (files, "too_many_items"),
        (body, "body_too_large"),
        (chunked, "body_too_large"),
        (too_many_bytes, "image_too_large"),
        (upload, "image_too_large"),
        (too_many_pixels, "image_too_large"),
    ):
        assert response.status_code == 413
        assert error(response)["code"] == code
    assert [error(r)["param"] for r in (many, files)] == ["input", "file"]
    assert good.status_code == 200


async def test_an_alias_names_the_served_model(connect: Connect, photo: Path) -> None:
    async with connect(FakeModel(replace(CARD, aliases=("text-embedding-3-small",)))) as client:
        response = await post(client, input={"path": "tom.jpg"}, model="text-embedding-3-small")
    assert response.json()["model"] == "fake"


async def test_a_model_that_is_still_loading_is_unavailable(connect: Connect) -> None:
    async with connect(FakeModel(card=None)) as client:
        response = await post(client, input={"path": "tom.jpg"})
        assert response.status_code == 503
        assert error(response)["code"] == "unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/v1/models")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_an_unforeseen_failure_tells_nothing(connect: Connect, photo: Path) -> None:
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
        async def embed(self, stack: Any, deadline: float, tenant: str | None = None) -> Any:
            answer = await super().embed(stack, deadline)
            answer.vectors[0, 3] = np.nan
            return answer

    async with connect(Broken()) as client:
        items = [{"path": "tom.jpg"}, b64(jpeg(5))]
        bad, good = (await post(client, input=items, on_error="report")).json()["data"]
    assert bad["error"]["code"] == "internal"
    assert good["object"] == "embedding"


async def test_a_full_queue_answers_429_and_empties_again(connect: Connect, photo: Path) -> None:
    class Slow(FakeModel):
        release = asyncio.Event()

        async def embed(self, stack: Any, deadline: float, tenant: str | None = None) -> Any:
            await self.release.wait()
            return await super().embed(stack, deadline)

    model = Slow()
    item = {"path": "tom.jpg"}
    async with connect(model, limits={"max_queued_items": 2}) as client:
        waiting = [asyncio.create_task(post(client, input=item)) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await post(client, input=item)
        model.release.set()
        assert [(await w).status_code for w in waiting] == [200, 200]
        assert (await post(client, input=item)).status_code == 200
    assert refused.status_code == 429
    assert error(refused)["type"] == "overloaded_error"
    assert int(refused.headers["retry-after"]) > 0


async def test_a_request_is_answered_when_its_time_is_up(connect: Connect, photo: Path) -> None:
    class Stuck(FakeModel):
        async def embed(self, stack: Any, deadline: float, tenant: str | None = None) -> Any:
            await asyncio.sleep(60)

    began = time.monotonic()
    async with connect(Stuck(), limits={"request_timeout_s": 0.3}) as client:
        headers = {"x-request-timeout-seconds": "0"}
        body = {"input": {"path": "tom.jpg"}}
        response = await client.post("/v1/embeddings", json=body, headers=headers)
    assert time.monotonic() - began < 2
    assert response.status_code == 504
    assert error(response)["code"] == "deadline_exceeded"


async def test_server_timing_names_every_stage(connect: Connect, photo: Path) -> None:
    async with connect() as client:
        response = await post(client, input={"path": "tom.jpg"})
    stages = [part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")]
    assert stages == ["fetch", "decode", "queue", "model", "total"]


# Bodies that cost much more than they look.


@pytest.mark.parametrize("path", ["embeddings", "similarity", "rank", "classify"])
async def test_too_many_items_are_counted_before_they_are_parsed(
    connect: Connect, path: str
) -> None:
    items = [0] * 400_000
    body = {
        "embeddings": {"input": items},
        "similarity": {"a": items, "b": items},
        "rank": {"query": "x", "documents": items},
        "classify": {"input": items, "labels": ["a"]},
    }[path]
    async with connect(FakeModel(text=TEXT)) as client:
        began = time.monotonic()
        response = await client.post(f"/v1/{path}", json=body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_many_items"
    assert time.monotonic() - began < 2


async def test_a_body_of_a_million_values_is_not_even_read_as_json(connect: Connect) -> None:
    content = b'{"input": [' + b"{}," * 1_100_000 + b"{}]}"
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=content, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


async def test_a_form_of_near_boundaries_lets_others_in_between(connect: Connect) -> None:
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


async def test_a_large_answer_is_sent_in_pieces() -> None:
    answer = render.json_response({"x": "y" * 700_000}, headers={"A": "b"})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await answer({"type": "http"}, receive, send)
    start, *pieces = sent
    assert start["type"] == "http.response.start"
    assert (b"content-length", str(len(answer.body)).encode()) in start["headers"]
    assert b"".join(piece["body"] for piece in pieces) == answer.body
    assert [piece["more_body"] for piece in pieces] == [True, True, False]
    assert max(len(piece["body"]) for piece in pieces) <= render.PIECE_BYTES


async def test_a_form_in_a_charset_that_takes_for_ever_is_refused(connect: Connect) -> None:
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


async def test_json_of_too_many_keys_is_refused_before_it_is_parsed(connect: Connect) -> None:
    body = b'{"input":"x",' + b",".join(b'"%d":{}' % i for i in range(300_000)) + b"}"
    async with connect() as client:
        response = await client.post(
            "/v1/embeddings", content=body, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413
