"""What the fence lets in: one request id, and no header or websocket that steers Serve."""

from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from deployments.api.fence import Fence, middlewares


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the headers that reached it, and with an id of its own as Serve does."""
    seen = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    response = JSONResponse(seen, headers={"X-Request-ID": "serve"})
    response.headers.append("x-request-id", "twice")
    await response(scope, receive, send)


async def get(*headers: tuple[bytes, bytes]) -> tuple[httpx.Response, list[tuple[str, str]]]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=Fence(echo)), base_url="http://test"
    ) as client:
        response = await client.get("/", headers=list(headers))
    return response, [(name, value) for name, value in response.json()]


@pytest.mark.parametrize("given", [b"a", b"A-b_c.9", b"x" * 128])
async def test_a_valid_request_id_is_kept_and_answered_once(given: bytes) -> None:
    response, seen = await get((b"X-Request-Id", given))
    assert response.headers.get_list("x-request-id") == [given.decode()]
    assert [v for n, v in seen if n == "x-request-id"] == [given.decode()]


@pytest.mark.parametrize(
    "given", [b"", b"a b", b"x" * 129, b"a\x00b", b"\xff\xfe", b"a,b", b"<script>", "ä".encode()]
)
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    response, seen = await get((b"x-request-id", given))
    (answered,) = response.headers.get_list("x-request-id")
    assert len(answered) == 32
    assert [v for n, v in seen if n == "x-request-id"] == [answered]


async def test_two_request_ids_are_replaced_by_a_new_one() -> None:
    response, _ = await get((b"x-request-id", b"a"), (b"x-request-id", b"b"))
    (answered,) = response.headers.get_list("x-request-id")
    assert answered not in ("a", "b")


@pytest.mark.parametrize(
    "name",
    [
        b"X-Request-Timeout-Seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"Serve-Multiplexed-Model-Id",
        b"x-session-id",
    ],
)
async def test_serves_own_control_headers_do_not_get_in(name: bytes) -> None:
    _, seen = await get((name, b"0"), (b"x-other", b"1"))
    assert name.decode().lower() not in [n for n, _ in seen]
    assert ("x-other", "1") in seen


async def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await Fence(echo)({"type": "websocket", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_serve_finds_the_fence_by_its_import_path() -> None:
    from ray.serve._private.utils import call_function_from_import_path

    (layer,) = call_function_from_import_path("deployments.api.fence.middlewares")
    assert layer.cls is Fence
    ours: object = middlewares()[0].cls
    assert ours is Fence


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_method_without_a_body_reads_none_and_still_sees_a_disconnect(method: str) -> None:
    sent = iter([b"x" * 1000] * 3)

    async def receive() -> Any:
        try:
            return {"type": "http.request", "body": next(sent), "more_body": True}
        except StopIteration:
            return {"type": "http.disconnect"}

    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": method, "path": "/", "headers": []}
    await Fence(app)(scope, receive, send)
    assert seen == [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]


@pytest.mark.parametrize(("haproxy", "kept"), [("1", ["7"]), ("0", []), (None, [])])
async def test_only_haproxy_tells_how_many_it_has_refused(
    haproxy: str | None, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    if haproxy is not None:
        monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", haproxy)
    (middleware,) = middlewares()
    app: Any = middleware.cls(echo, *middleware.args, **middleware.kwargs)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test"
    ) as client:
        seen = (await client.get("/", headers={"X-Raylens-Refused": "7"})).json()
    assert [value for name, value in seen if name == "x-raylens-refused"] == kept


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("name", "value", "is_kept"),
    [
        (b"traceparent", TRACE, True),
        (b"traceparent", b"\xff", False),
        (b"traceparent", TRACE[:-1], False),
        (b"traceparent", TRACE + b"\n{}", False),
        (b"tracestate", b"vendor=a, other=b", True),
        (b"tracestate", b"vendor=\xe4", False),
        (b"tracestate", b"a=" + b"x" * 512, False),
    ],
)
async def test_only_a_valid_trace_context_gets_in(name: bytes, value: bytes, is_kept: bool) -> None:
    """While tracing is on, Serve fails at bytes that are not UTF-8, and keeps anything else."""
    _, seen = await get((name, value))
    assert ((name.decode(), value.decode("latin-1")) in seen) == is_kept
