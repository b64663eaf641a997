"""The bytes of all requests' bodies under way, bounded. A layer around the endpoints.

The limit of one body is `bodies`' business.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.fence import request_id
from deployments.api.render import error_response
from deployments.errors import Overloaded
from deployments.settings import Limits


class BodyBudget:
    """ASGI middleware: a body counts from its Content-Length, or as its chunks come, until its
    request is answered. Beyond `limits.max_inflight_bytes` the answer is 429.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        held = received = 0

        def hold(number: int) -> None:
            nonlocal held
            more = max(0, number - held)
            # Whoever is alone is let in: the limit of one body holds anyway.
            if self._held > held and self._held + more > self._limits.max_inflight_bytes:
                raise Overloaded(
                    "Too many bytes of requests are under way already; retry after a pause.",
                    retry_after_s=1,
                )
            self._held += more
            held += more

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            hold(received)
            return message

        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isascii() and declared.isdigit() else 0
        try:
            # A larger one is refused before any of it is read.
            hold(size if size <= self._limits.max_body_bytes else 0)
            await self._app(scope, counted, send)
        except Overloaded as error:
            await error_response(error, request_id(request))(scope, receive, send)
        finally:
            self._held -= held
