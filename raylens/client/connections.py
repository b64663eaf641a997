"""Connections to one service, as many as may be used at once.

The pool of httpx 0.28 scans all of its connections for each request, and again whenever another
request was quicker to take the one it found: 128 requests that begin together keep a processor busy
for three seconds. So each connection here is a client of its own.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx

# An unused connection is closed after this long, as httpx does: many servers close it soon.
IDLE_S = 5.0


class Connections:
    """Opened when they are needed, kept open for a while, and used again."""

    def __init__(self, most: int, *, trust_env: bool, **options: Any) -> None:
        """At most `most` at a time; `options` are those of `httpx.AsyncClient`."""
        tls = httpx.create_ssl_context(trust_env=trust_env)  # takes 30 ms, so all share one
        self._connect = partial(httpx.AsyncClient, verify=tls, trust_env=trust_env, **options)
        self._places = asyncio.Semaphore(most)
        self._open: set[httpx.AsyncClient] = set()
        # Since when each is free, the one used last at the end, which is taken first.
        self._free: deque[tuple[float, httpx.AsyncClient]] = deque()
        self._is_closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """Waits until one is free, in turn. Send one request at a time on it."""
        async with self._places:
            client = self._taken()
            try:
                yield client
            except BaseException:
                # It may be in the middle of an answer. httpcore would keep it open for good
                # (encode/httpcore#1093).
                await self._close(client)
                raise
            self._free.append((time.monotonic(), client))
        while self._free and self._free[0][0] < time.monotonic() - IDLE_S:
            await self._close(self._free.popleft()[1])

    async def aclose(self) -> None:
        """Closes those in use, too: their requests fail."""
        self._is_closed = True
        await asyncio.gather(*map(self._close, list(self._open)), return_exceptions=True)

    def _taken(self) -> httpx.AsyncClient:
        if self._is_closed:
            raise RuntimeError("the client has been closed")
        if self._free:
            return self._free.pop()[1]
        client = self._connect()
        self._open.add(client)
        return client

    async def _close(self, client: httpx.AsyncClient) -> None:
        self._open.discard(client)
        await client.aclose()
