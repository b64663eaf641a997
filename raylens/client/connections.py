"""Connections to one service, as many as may be used at once.

The pool of httpx 0.28 scans all of its connections for each request, and again whenever another
request was quicker to take the one it found: 128 requests that begin together keep a processor busy
for three seconds. So each connection here is a client of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx


class Connections:
    """A fixed number of connections, kept open and used again."""

    def __init__(self, number: int, *, trust_env: bool, **options: Any) -> None:
        """`options` are those of `httpx.AsyncClient`."""
        tls = httpx.create_ssl_context(trust_env=trust_env)  # takes 30 ms, so all share one
        self._all = [
            httpx.AsyncClient(verify=tls, trust_env=trust_env, **options) for _ in range(number)
        ]
        # Last in, first out: the one used last is the least likely to have been closed meanwhile.
        self._free = asyncio.LifoQueue[httpx.AsyncClient]()
        for client in self._all:
            self._free.put_nowait(client)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """Waits until one is free. Send one request at a time on it."""
        client = await self._free.get()
        try:
            yield client
        finally:
            self._free.put_nowait(client)

    async def aclose(self) -> None:
        for client in self._all:
            await client.aclose()
