"""The outermost middleware of every HTTP server that Serve starts; filters headers in and out.

Serve acts on some request headers before the application sees them, fails at others, and echoes the
caller's request id unchecked. `raylens serve` puts this middleware around Serve's own through
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH; the stock `serve run` does so when that is set.
"""

import os
import re
import uuid

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = b"x-request-id"
VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

# Headers with which a caller could control Serve itself: turn off its timeout or its cancellation,
# choose a multiplexed model, pin a replica.
SERVE_CONTROLS = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"x-session-id",
    }
)


def request_id(request: Request) -> str:
    """The id that the fence put into the request's headers, or a new one if there is no fence."""
    given = request.headers.get("x-request-id", "")
    if not VALID_REQUEST_ID.fullmatch(given.encode("latin-1", "replace")):
        if not hasattr(request.state, "request_id"):
            request.state.request_id = uuid.uuid4().hex
        return str(request.state.request_id)
    return given


# What HAProxy tells the service (`front`), in place of whatever a caller sends.
_OF_HAPROXY = frozenset({b"x-raylens-refused"})


# A caller's trace (W3C Trace Context). Serve reads it where tracing is on, and fails at some bytes.
TRACE_CONTEXT = {
    b"traceparent": re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    b"tracestate": re.compile(rb"[\x20-\x7e]{0,512}"),
}


class _WithoutBody:
    """A `receive` for methods without a body: if a caller sends one all the same, Serve would
    buffer it without limit."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._began = False

    async def __call__(self) -> Message:
        if not self._began:
            self._began = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return message


class Fence:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, behind_haproxy: bool = False) -> None:
        self._app = app
        self._removed = SERVE_CONTROLS if behind_haproxy else SERVE_CONTROLS | _OF_HAPROXY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # not supported; Serve would answer with a 500
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == REQUEST_ID]
        valid = len(given) == 1 and VALID_REQUEST_ID.fullmatch(given[0])
        own_id = given[0] if valid else uuid.uuid4().hex.encode()
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if name != REQUEST_ID
            and name.replace(b"_", b"-") not in self._removed
            and (name not in TRACE_CONTEXT or TRACE_CONTEXT[name].fullmatch(value))
        ]

        async def send_with_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(n, v) for n, v in message["headers"] if n.lower() != REQUEST_ID]
                message = {**message, "headers": [*headers, (REQUEST_ID, own_id)]}
            await send(message)

        inner = {**scope, "headers": [*kept, (REQUEST_ID, own_id)]}
        reading = _WithoutBody(receive) if scope["method"] in ("GET", "HEAD") else receive
        await self._app(inner, reading, send_with_one_id)


def middlewares() -> list[Middleware]:
    """Named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH; called once per HTTP server."""
    behind_haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    return [Middleware(Fence, behind_haproxy=behind_haproxy)]
