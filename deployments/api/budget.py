"""Bounds the bytes of all request bodies in flight. Middleware around the endpoints.

The limit of a single body is in `bodies`.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.auth import tenant_of
from deployments.fairness import TenantCount
from deployments.settings import Limits

# A photo or two. Larger requests may fill only this part of the budget, so that large bodies that
# stall or arrive slowly leave some of it to small ones.
SMALL_BYTES = 1024 * 1024
LARGE_PART = 0.875


class BodyBudget:
    """ASGI middleware: a body counts as it arrives, until its answer begins. Beyond
    `limits.max_inflight_bytes` reading raises Overloaded, beyond a tenant's part of them
    RateLimited.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._bytes = TenantCount(limits.max_inflight_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tenant = tenant_of(Request(scope))
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            more = len(message.get("body", b""))
            if more:
                self._check(more, held, tenant)
                held += more
                self._bytes.add(more, tenant)
            return message

        def release() -> None:
            nonlocal held
            self._bytes.add(-held, tenant)
            held = 0

        async def released(message: Message) -> None:
            # The body is freed by now, and a client that reads its answer slowly blocks nobody.
            if message["type"] == "http.response.start":
                release()
            await send(message)

        try:
            await self._app(scope, counted, released)
        finally:
            release()

    def _check(self, more: int, held: int, tenant: str | None) -> None:
        part = 1.0 if held + more <= SMALL_BYTES else LARGE_PART
        self._bytes.check(
            more,
            tenant,
            in_all="Too many bytes of requests are in flight already; retry after a pause.",
            of_key="Too many bytes of this key's requests are in flight already; retry after a "
            "pause.",
            limit="max_inflight_bytes",
            held=held,
            part=part,
        )
