"""What a client does when the service is busy, broken, another one, or not there."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from deployments.api.routes import Api
from raylens import ApiError, AsyncClient, Client
from raylens.cluster import free_port
from tests.client.conftest import Serve, running
from tests.fakes import FakeModel, service

ITEM = np.zeros((8, 8, 3), np.uint8)
BUSY = {"error": {"code": "overloaded", "message": "Busy.", "param": None, "request_id": "r"}}


class Front:
    """Answers requests for vectors from a script, and then lets the service do so."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self._app = Api(service(FakeModel())).app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        self.headers.append(dict(request.headers))
        if scope["path"] != "/v1/embeddings" or not self.answers:
            await self._app(scope, receive, send)
            return
        self.times.append(time.monotonic())
        await self.answers.pop(0)(scope, receive, send)


def refusal(status: int, retry_after: int | None = 0) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Response(json.dumps(BUSY), status, headers, media_type="application/json")


@contextmanager
def behind(front: Front, **options: Any) -> Iterator[Client]:
    with running(front) as url, Client(url, **options) as client:
        yield client


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(status: int) -> None:
    front = Front(refusal(status), refusal(status))
    with behind(front) as client:
        assert client.embed([ITEM]).shape == (1, 12)
    assert len(front.times) == 2


def test_the_service_says_how_long_to_wait() -> None:
    front = Front(refusal(429, 1), refusal(429, 0))
    with behind(front) as client:
        client.embed([ITEM])
    assert front.times[1] - front.times[0] >= 1


def test_retries_end() -> None:
    front = Front(*[refusal(429) for _ in range(3)])
    with behind(front, retries=2) as client:
        with pytest.raises(ApiError, match="overloaded") as caught:
            client.embed([ITEM])
        assert client.embed([ITEM]).shape == (1, 12)
    assert caught.value.status == 429
    assert caught.value.retry_after_s == 0


@pytest.mark.parametrize("status", [400, 413, 500, 504])
def test_other_refusals_are_final(status: int) -> None:
    front = Front(refusal(status), refusal(status))
    with behind(front) as client, pytest.raises(ApiError) as caught:
        client.embed([ITEM])
    assert caught.value.status == status
    assert len(front.times) == 1


def test_a_service_that_is_not_there_is_a_connection_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    expected = pytest.raises(ConnectionError, match=f"nothing answers at {url}")
    with Client(url, retries=1) as client, expected:
        client.embed([ITEM])
    assert time.monotonic() - began >= 0.5


def test_a_service_that_comes_back_is_found() -> None:
    port = free_port()

    server = uvicorn.Server(
        uvicorn.Config(
            Api(service(FakeModel())).app(),
            port=port,
            log_level="error",
            ws="none",
            lifespan="off",
        )
    )
    thread = threading.Timer(1.0, lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.embed([ITEM]).shape == (1, 12)
    finally:
        server.should_exit = True
        thread.join()


def test_no_answer_in_time_is_a_timeout() -> None:
    class Slow(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(5)

    expected = pytest.raises(TimeoutError, match="did not answer in time")
    with behind(Front(Slow()), timeout_s=0.3) as client, expected:
        client.embed([ITEM])


@pytest.mark.parametrize(
    "response",
    [
        Response("<html>hello</html>", media_type="text/html"),
        Response(b"\x93NUMPY broken"),
        Response("nginx", 500),
        Response("[]", 400, media_type="application/json"),
    ],
)
def test_what_is_not_raylens_is_named(response: Response) -> None:
    with behind(Front(response)) as client, pytest.raises(ApiError) as caught:
        client.embed([ITEM])
    assert caught.value.code == "unknown"
    assert caught.value.status == response.status_code
    assert "raylens" in caught.value.message


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_does_not_reach_the_service_is_asked_again(status: int) -> None:
    front = Front(Response("<html>Bad gateway</html>", status))
    with behind(front) as client:
        (row,) = client.embed([ITEM], errors="return")
    assert isinstance(row, np.ndarray)
    assert len(front.times) == 1  # of answers from the script


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_batch_that_is_too_large_for_a_proxy_is_sent_in_parts(errors: Any) -> None:
    front = Front(Response("<html>Too large</html>", 413), Response("<html>Too large</html>", 413))
    with behind(front, max_concurrency=1) as client:
        rows = client.embed([ITEM] * 4, errors=errors)
    assert [getattr(row, "shape", row) for row in rows] == [(12,)] * 4


def test_a_service_that_asks_for_an_hour_is_not_waited_for() -> None:
    with behind(Front(refusal(429, 3600))) as client, pytest.raises(ApiError) as caught:
        client.embed([ITEM])
    assert caught.value.retry_after_s == 3600


def test_an_answer_that_drips_is_a_timeout() -> None:
    class Dripping(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(50):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(0.1)

    expected = pytest.raises(TimeoutError, match="did not answer in time")
    with behind(Front(Dripping()), timeout_s=1) as client:
        client.models()
        began = time.monotonic()
        with expected:
            client.embed([ITEM])
        assert time.monotonic() - began < 4


def test_waiting_for_another_request_is_not_counted() -> None:
    class Slow(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.6)
            await refusal(400)(scope, receive, send)

    with behind(Front(*[Slow() for _ in range(4)]), timeout_s=1, max_concurrency=1) as client:
        client.models()
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.embed, [ITEM]) for _ in range(4)]
        assert {type(call.exception()) for call in calls} == {ApiError}


def test_another_service_at_the_address_is_named(serve: Serve) -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        listed = '{"object": "list", "data": []}'  # as OpenAI's own service lists its models
        await Response(listed, media_type="application/json")(scope, receive, send)

    expected = pytest.raises(ApiError, match="is not raylens")
    with running(hello) as url, Client(url) as client, expected:
        client.embed([ITEM])


def test_the_key_and_the_address_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = Front()
    with running(front) as url:
        monkeypatch.setenv("RAYLENS_URL", f"{url}/")
        monkeypatch.setenv("RAYLENS_API_KEY", "rl_env\n")
        with Client() as client:
            client.models()
        with Client(api_key="rl_given") as client:
            client.models()
    keys = [headers["authorization"] for headers in front.headers]
    assert keys == ["Bearer rl_env", "Bearer rl_given"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        Client(url)


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="no key has") as caught:
        Client(api_key="rl_secret\x00é")
    assert "secret" not in str(caught.value)


def test_a_client_that_is_never_used_opens_no_connection() -> None:
    with Client(f"http://127.0.0.1:{free_port()}"):
        pass


def test_the_item_errors_of_a_large_batch_are_all_known(serve: Serve) -> None:
    with serve() as url, Client(url) as client:
        rows = client.embed([b"no image"] * 2000, errors="return")
    assert all(isinstance(row, ApiError) and row.code == "unsupported_image" for row in rows)


async def test_many_requests_under_way_cost_about_as_much_as_a_few(serve: Serve) -> None:
    async def cost_s(url: str, max_concurrency: int) -> float:
        async with AsyncClient(url, max_concurrency=max_concurrency) as client:
            await asyncio.gather(*(client.models() for _ in range(192)))  # opens the connections
            before_s = time.thread_time()
            await asyncio.gather(*(client.models() for _ in range(192)))
            return time.thread_time() - before_s

    with serve() as url:
        assert await cost_s(url, 192) < 3 * await cost_s(url, 8)
