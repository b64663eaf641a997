"""Who may call, and how much, tested through the whole HTTP layer."""

import asyncio
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.api import auth
from tests.api.conftest import Connect
from tests.fakes import TEXT, FakeModel

BODY = {"input": {"text": "a"}}


def line(secret: str, name: str = "ci", **may: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **may}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/similarity"),
        ("POST", "/v1/rank"),
        ("POST", "/v1/classify"),
        ("GET", "/v1/models"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("DELETE", "/v1/embeddings"),
        ("GET", "http://test//livez"),
        ("GET", "/livez/"),
        ("POST", "/livez"),
        ("GET", "/LIVEZ"),
        ("GET", "/livez/../v1/models"),
        ("GET", "/livez%2f..%2fv1/models"),
        ("GET", "http://test//"),
        ("GET", "/docs/"),
        ("GET", "/web/"),
        ("GET", "/web/../v1/models"),
        ("GET", "/web/samples"),
    ],
)
async def test_every_route_but_the_probes_and_the_page_needs_a_key(
    connect: Connect, method: str, path: str
) -> None:
    async with connect(auth={"keys": [line("s")]}) as client:
        response = await client.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("unauthorized", "authentication_error")
    assert error["request_id"] == response.headers["x-request-id"]


async def test_the_page_is_open_and_what_is_posted_to_its_path_is_not(connect: Connect) -> None:
    async with connect(auth={"keys": [line("s")]}) as client:
        page, posted = await client.get("/"), await client.post("/")
    assert (page.status_code, posted.status_code) == (200, 401)
    assert posted.json()["error_type"] == "Validation"  # as the clients of TEI read it


async def test_the_probes_are_open(connect: Connect) -> None:
    async with connect(auth={"keys": [line("s")]}) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_key_is_accepted_however_its_scheme_is_capitalised(connect: Connect) -> None:
    keys = [line("other", "b"), line("s")]
    async with connect(FakeModel(text=TEXT), auth={"keys": keys}) as client:
        for scheme in ("Bearer", "bearer", "BEARER"):
            response = await client.post(
                "/v1/embeddings", json=BODY, headers={"Authorization": f"{scheme} s"}
            )
            assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Basic s")],
        [("Authorization", "s")],
        [("Authorization", "Bearer s"), ("Authorization", "Bearer s")],
        [("Authorization", b"Bearer \xff\xfe")],
        [("Authorization", f"Bearer {hashlib.sha256(b's').hexdigest()}")],
    ],
)
async def test_any_other_authorization_header_is_refused(
    connect: Connect, headers: list[Any]
) -> None:
    async with connect(auth={"keys": [line("s")]}) as client:
        response = await client.get("/v1/models", headers=headers)
    assert response.status_code == 401


async def test_without_keys_everybody_may_call(connect: Connect) -> None:
    async with connect() as client:
        assert (await client.get("/v1/models", headers=bearer("any"))).status_code == 200


async def test_an_empty_keys_file_keeps_everybody_out(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch()
    async with connect(auth={"keys_file": path}) as client:
        assert (await client.get("/v1/models")).status_code == 401


async def test_the_keys_file_is_read_again_when_it_changes(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "RELOAD_S", 0.0)
    path = tmp_path / "keys"
    path.write_text(json.dumps(line("old")))
    async with connect(auth={"keys_file": path}) as client:

        async def status(secret: str) -> int:
            return (await client.get("/v1/models", headers=bearer(secret))).status_code

        assert [await status("old"), await status("new")] == [200, 401]
        path.write_text(json.dumps(line("new", "another")))
        assert [await status("old"), await status("new")] == [401, 200]


async def test_a_secret_that_kubernetes_changes_is_read_again(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mounted file is a link through `..data`, which then points to another folder."""
    monkeypatch.setattr(auth, "RELOAD_S", 0.0)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(json.dumps(line(name)))
        (tmp_path / f"..data-{name}").symlink_to(name)
    (tmp_path / "..data-old").rename(tmp_path / "..data")
    (tmp_path / "keys").symlink_to("..data/keys")
    async with connect(auth={"keys_file": tmp_path / "keys"}) as client:
        (tmp_path / "..data-new").rename(tmp_path / "..data")
        answers = [await client.get("/v1/models", headers=bearer(n)) for n in ("old", "new")]
    assert [a.status_code for a in answers] == [401, 200]


async def test_a_keys_file_that_breaks_or_vanishes_leaves_its_keys_valid(
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(auth, "RELOAD_S", 0.0)
    path = tmp_path / "keys"
    path.write_text(json.dumps(line("s")))
    async with connect(auth={"keys_file": path}) as client:
        for change in (lambda: path.write_text("{half a li"), path.unlink):
            change()
            assert (await client.get("/v1/models", headers=bearer("s"))).status_code == 200
            assert (await client.get("/v1/models")).status_code == 401
    assert "The keys read before stay valid" in caplog.text


async def test_a_keys_rate_is_enforced_and_named_in_the_error(connect: Connect) -> None:
    keys = [line("slow", "a", rate="3/minute"), line("free", "b")]
    async with connect(FakeModel(text=TEXT), auth={"keys": keys}) as client:
        statuses = [
            (await client.post("/v1/embeddings", json=BODY, headers=bearer("slow"))).status_code
            for _ in range(5)
        ]
        limited = await client.post("/v1/embeddings", json=BODY, headers=bearer("slow"))
        other = await client.post("/v1/embeddings", json=BODY, headers=bearer("free"))
    assert statuses == [200, 200, 200, 429, 429]
    error = limited.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limited", "overloaded_error")
    assert "3 requests per minute" in error["message"]
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert other.status_code == 200


class SlowModel(FakeModel):
    def __init__(self) -> None:
        super().__init__(text=TEXT)
        self.may_answer = asyncio.Event()

    async def embed_text(self, *args: Any) -> Any:
        await self.may_answer.wait()
        return await super().embed_text(*args)


async def test_a_keys_concurrency_is_enforced_and_freed_by_answers(connect: Connect) -> None:
    model = SlowModel()
    keys = [line("two", "a", concurrency=2), line("free", "b")]
    async with connect(model, auth={"keys": keys}) as client:

        def embed(secret: str, text: str) -> "asyncio.Task[httpx.Response]":
            body = {"input": {"text": text}}
            return asyncio.create_task(
                client.post("/v1/embeddings", json=body, headers=bearer(secret))
            )

        running = [embed("two", "1"), embed("two", "2")]
        await asyncio.sleep(0.1)
        third = await embed("two", "3")
        assert third.status_code == 429
        assert third.json()["error"]["code"] == "rate_limited"
        assert "retry-after" in third.headers
        running.append(embed("free", "4"))
        model.may_answer.set()
        assert [(await task).status_code for task in running] == [200, 200, 200]
        assert (await embed("two", "5")).status_code == 200


async def test_one_key_leaves_room_in_the_queue_for_another(connect: Connect) -> None:
    model = SlowModel()
    settings = {"auth": {"keys": [line("a", "a"), line("b", "b")]}}
    async with connect(model, **settings, limits={"max_queued_items": 8}) as client:

        def embed(secret: str, *texts: str) -> "asyncio.Task[httpx.Response]":
            body = {"input": [{"text": text} for text in texts]}
            return asyncio.create_task(
                client.post("/v1/embeddings", json=body, headers=bearer(secret))
            )

        running = [embed("a", "1", "2", "3")]
        await asyncio.sleep(0.1)
        greedy = await embed("a", "4", "5")
        assert greedy.status_code == 429
        assert greedy.json()["error"]["code"] == "rate_limited"
        running.append(embed("b", "6", "7", "8"))
        await asyncio.sleep(0.1)
        model.may_answer.set()
        assert [(await task).status_code for task in running] == [200, 200]


async def test_no_key_gets_into_a_log_or_an_answer(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "rl_" + os.urandom(16).hex()
    model = FakeModel(text=TEXT)
    model.error = RuntimeError("broken")
    async with connect(model, auth={"keys": [line(secret)]}) as client:
        failed = await client.post("/v1/embeddings", json=BODY, headers=bearer(secret))
        refused = await client.post("/v1/embeddings", json=BODY, headers=bearer(secret + "x"))
    assert (failed.status_code, refused.status_code) == (500, 401)
    assert secret not in caplog.text
    assert secret not in failed.text + refused.text


async def test_an_empty_list_of_keys_keeps_everybody_out(connect: Connect) -> None:
    async with connect(auth={"keys": []}) as client:
        assert (await client.get("/v1/models")).status_code == 401
