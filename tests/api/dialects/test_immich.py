"""Immich's machine learning: its search is answered here, other tasks are forwarded."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from PIL import Image
from pydantic import ValidationError

from deployments.api.forwarding import MOST_FORWARDED
from deployments.settings import ApiSettings
from raylens.cluster import free_port
from tests.api.conftest import Connect
from tests.fakes import CARD, TEXT, FakeModel

RED = "a wall of #ff0000"
FACES: dict[str, Any] = {
    "facial-recognition": {
        "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
        "recognition": {"modelName": "buffalo_l"},
    }
}
DONE = {"facial-recognition": [], "imageHeight": 1, "imageWidth": 2}


def entries(kind: str, model: str = "fake", **more: Any) -> dict[str, str]:
    return {"entries": json.dumps({"clip": {kind: {"modelName": model, **more}}})}


async def predict(
    client: httpx.AsyncClient, fields: dict[str, str], image: bytes | None = None
) -> httpx.Response:
    """As Immich's server sends it: a blob without a type."""
    files: Any = {name: (None, value) for name, value in fields.items()}
    if image is not None:
        files["image"] = ("blob", image, "application/octet-stream")
    return await client.post("/predict", files=files)


def detail(response: httpx.Response) -> str:
    content = response.json()
    assert content.keys() == {"detail"}
    return str(content["detail"])


async def test_vectors_are_those_of_v1_embeddings_as_json_in_a_string(
    connect: Connect, photo: Path
) -> None:
    german = entries("textual", options={"language": "de"})
    async with connect(FakeModel(text=TEXT)) as client:
        body = {"input": [RED, {"path": photo.name}]}
        rows = (await client.post("/v1/embeddings", json=body)).json()["data"]
        text = await predict(client, {**german, "text": RED})
        image = await predict(client, entries("visual"), photo.read_bytes())
    assert text.json().keys() == {"clip"}
    assert json.loads(text.json()["clip"]) == rows[0]["embedding"]
    assert json.loads(image.json()["clip"]) == rows[1]["embedding"]
    with Image.open(photo) as opened:
        width, height = opened.size
    assert (image.json()["imageWidth"], image.json()["imageHeight"]) == (width, height)


async def test_the_size_is_that_before_exif_turns_the_image(connect: Connect) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(buffer, "JPEG", exif=exif)
    async with connect() as client:
        for _ in range(2):  # the second one is cached
            answer = (await predict(client, entries("visual"), buffer.getvalue())).json()
            assert (answer["imageWidth"], answer["imageHeight"]) == (30, 20)


async def test_the_model_may_have_openclips_name_and_the_image_counts(
    connect: Connect, photo: Path
) -> None:
    model = FakeModel(replace(CARD, aliases=("ViT-B-32__openai",)), text=TEXT)
    fields = {**entries("visual", "ViT-B-32__openai"), "text": RED}
    async with connect(model) as client:
        response = await predict(client, fields, photo.read_bytes())
    assert response.json().keys() == {"clip", "imageHeight", "imageWidth"}


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"text": "a"}, 422, "JSON"),
        ({"entries": "{", "text": "a"}, 422, "JSON"),
        ({"entries": "[]", "text": "a"}, 422, "name a task"),
        ({"entries": '{"clip": {}}', "text": "a"}, 422, "modelName"),
        ({"entries": '{"clip": {"textual": {}}}', "text": "a"}, 422, "modelName"),
        ({"entries": '{"clip": {"textual": {"modelName": 1}}}', "text": "a"}, 422, "modelName"),
        ({**entries("pipeline"), "text": "a"}, 422, "visual or textual"),
        ({**entries("visual"), "text": "a"}, 422, "takes an image"),
        ({"entries": json.dumps(FACES), "text": "a"}, 422, "immich_fallback"),
        (entries("textual"), 400, "field named image"),
        ({**entries("textual", "ViT-B-32__openai"), "text": "a"}, 404, "does not have that model"),
    ],
)
async def test_refusals_say_why(
    connect: Connect, fields: dict[str, str], status: int, text: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await predict(client, fields)
    assert response.status_code == status
    assert text in detail(response)


async def test_broken_images_and_other_bodies_are_refused_too(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        assert "empty" in detail(await predict(client, entries("visual"), b""))
        assert "multipart" in detail(await client.post("/predict", json={}))
        both = [("image", b"a"), ("image", b"b")]
        response = await client.post("/predict", data=entries("visual"), files=both)
        assert "one image" in detail(response)
        wrong = await client.post("/predict", data=entries("visual"), files={"file": b"a"})
        assert "named image" in detail(wrong)
        assert "method" in detail(await client.get("/predict"))


async def test_it_answers_pings(connect: Connect) -> None:
    async with connect(auth={"keys": []}) as client:
        response = await client.get("/ping")
    assert (response.status_code, response.text) == (200, "pong")


class Fallback:
    """Another Immich's machine learning, which answers as told and remembers what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[dict[str, Any]] = []
        self.answer: Callable[[], web.Response] = lambda: web.json_response(DONE)
        self.arrivals = asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def predict(self, request: web.Request) -> web.Response:
        assert request.content_type == "multipart/form-data"
        form = await request.post()
        found = {k: v.file.read() if isinstance(v, web.FileField) else v for k, v in form.items()}
        self.seen.append(found)
        self.arrivals.release()
        await self.may_answer.wait()
        return self.answer()


@pytest.fixture
async def fallback() -> AsyncIterator[Fallback]:
    found = Fallback(f"http://127.0.0.1:{(port := free_port())}")
    app = web.Application()
    app.router.add_post("/predict", found.predict)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield found
    await runner.cleanup()


async def test_other_tasks_are_forwarded_and_clip_is_not(
    connect: Connect, fallback: Fallback, photo: Path
) -> None:
    data, faces = photo.read_bytes(), {"entries": json.dumps(FACES)}
    async with connect(FakeModel(text=TEXT), api={"immich_fallback": fallback.url}) as client:
        response = await predict(client, faces, data)
        assert (response.status_code, response.json()) == (200, DONE)
        assert response.headers["content-type"] == "application/json"
        assert (await predict(client, {**faces, "text": "a"})).json() == DONE
        assert (await predict(client, entries("visual"), data)).status_code == 200
        both = {"entries": json.dumps({**FACES, "clip": {"visual": {"modelName": "fake"}}})}
        refused = await predict(client, both, data)
        assert (refused.status_code, detail(refused)) == (
            422,
            "Ask for clip alone, and for other tasks without it.",
        )
        assert "field named image" in detail(await predict(client, faces))
    assert fallback.seen == [{**faces, "image": data}, {**faces, "text": "a"}]


async def test_an_image_that_is_too_large_is_not_forwarded(
    connect: Connect, fallback: Fallback
) -> None:
    faces, api = {"entries": json.dumps(FACES)}, {"immich_fallback": fallback.url}
    async with connect(api=api, limits={"max_image_bytes": 10}) as client:
        response = await predict(client, faces, b"x" * 11)
        assert (await predict(client, faces, b"x" * 10)).status_code == 200
    assert response.status_code == 413
    assert "larger than 10 bytes" in detail(response)
    assert [len(form["image"]) for form in fallback.seen] == [10]


async def test_what_is_forwarded_has_a_limit_of_its_own_and_leaves_the_model_to_others(
    connect: Connect, fallback: Fallback
) -> None:
    model, faces = FakeModel(text=TEXT), {"entries": json.dumps(FACES), "text": "a"}
    model.image_s = 1.0  # so that five such requests are more than may wait for it
    fallback.may_answer.clear()
    async with connect(model, api={"immich_fallback": fallback.url}) as client:
        sent = []
        for _ in range(MOST_FORWARDED):
            sent.append(asyncio.create_task(predict(client, faces)))
            await asyncio.wait_for(fallback.arrivals.acquire(), 5)
        beyond = await predict(client, faces)
        own = await client.post("/v1/embeddings", json={"input": RED})
        fallback.may_answer.set()
        answers = await asyncio.gather(*sent)
        after = await predict(client, faces)
    assert {answer.status_code for answer in (own, *answers, after)} == {200}
    assert (beyond.status_code, beyond.headers["retry-after"]) == (429, "1")
    assert "being forwarded" in detail(beyond)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, b"{}"),
        (302, {"Location": "/elsewhere"}, b"{}"),
        (200, {}, b"<html>"),
        (200, {}, b'"' + b"x" * 17 * 1024 * 1024 + b'"'),
    ],
)
async def test_a_failure_of_the_other_is_a_bad_gateway(
    connect: Connect, fallback: Fallback, status: int, headers: dict[str, str], body: bytes
) -> None:
    fallback.answer = lambda: web.Response(status=status, headers=headers, body=body)
    async with connect(api={"immich_fallback": fallback.url}) as client:
        response = await predict(client, {"entries": json.dumps(FACES)}, b"x")
    assert (response.status_code, detail(response)) == (
        502,
        "The service that this is forwarded to fails.",
    )


async def test_where_the_other_cannot_be_reached_or_hangs_there_is_an_answer(
    connect: Connect,
) -> None:
    faces = {"entries": json.dumps(FACES)}
    async with connect(api={"immich_fallback": f"http://127.0.0.1:{free_port()}"}) as client:
        assert (await predict(client, faces, b"x")).status_code == 502
    limits = {"request_timeout_s": 0.5}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with connect(api={"immich_fallback": url}, limits=limits) as client:
            response = await predict(client, faces, b"x")
    assert (response.status_code, detail(response)) == (
        504,
        "The service that this is forwarded to takes too long.",
    )


@pytest.mark.parametrize(
    "url", ["immich:3003", "http://immich:3003/path", "ftp://immich", "http://"]
)
def test_the_fallback_is_an_address_without_a_path(url: str) -> None:
    with pytest.raises(ValidationError):
        ApiSettings(immich_fallback=url)
