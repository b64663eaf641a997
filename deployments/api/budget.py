"""The bytes of all requests' bodies under way, bounded. A layer around the endpoints.

The limit of one body is `bodies`' business.
"""

from collections import Counter

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.auth import caller
from deployments.errors import Overloaded
from deployments.settings import Limits

# A photo or two; and what all bodies of more may have of the budget.
SMALL_BYTES = 1024 * 1024
LARGE_PART = 0.875


class BodyBudget:
    """ASGI middleware: a body counts as it comes, until its answer begins. Beyond
    `limits.max_inflight_bytes`, reading raises Overloaded; for a caller with a key beyond half.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._most = limits.max_inflight_bytes
        self._held = 0
        self._held_by: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        who = caller(Request(scope))
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            more = len(message.get("body", b""))
            if more:
                self._check(more, held, who)
                held += more
                self._add(more, who)
            return message

        def release() -> None:
            nonlocal held
            self._add(-held, who)
            held = 0

        async def released(message: Message) -> None:
            # The body is gone by now, and who reads the answer slowly keeps nobody out.
            if message["type"] == "http.response.start":
                release()
            await send(message)

        try:
            await self._app(scope, counted, released)
        finally:
            release()

    def _check(self, more: int, held: int, who: str | None) -> None:
        # Large bodies that stall, or come slowly, leave room for small ones.
        part = 1.0 if held + more <= SMALL_BYTES else LARGE_PART
        own = self._held if who is None else self._held_by[who]
        most = self._most if who is None else self._most // 2
        # Whoever is alone is let in: the limit of one body holds anyway.
        if (self._held > held and self._held + more > part * self._most) or (
            own > held and own + more > part * most
        ):
            raise Overloaded(
                "Too many bytes of requests are under way already; retry after a pause.",
                retry_after_s=1,
            )

    def _add(self, number: int, who: str | None) -> None:
        self._held += number
        if who is not None:
            self._held_by[who] += number
