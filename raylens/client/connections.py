"""Connections to one service, as many as may be used at once.

httpx's own pool goes through all of its connections for every request, and again whenever another
request was quicker to take the one it found: 128 requests that begin together keep a processor busy
for three seconds. So each connection here is a client of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx


class Connections:
    """So many of them, used again and again."""

    def __init__(self, number: int, *, trust_env: bool, **options: Any) -> None:
        """`options` are those of `httpx.AsyncClient`."""
        tls = httpx.create_ssl_context(trust_env=trust_env)  # takes 30 ms: once for all
        self._all = [
            httpx.AsyncClient(verify=tls, trust_env=trust_env, **options) for _ in range(number)
        ]
        # The one that was used last comes first: it is the least likely to have been closed.
        self._free = asyncio.LifoQueue[httpx.AsyncClient]()
        for client in self._all:
            self._free.put_nowait(client)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """Waits for one that is free. It is for one request after the other."""
        client = await self._free.get()
        try:
            yield client
        finally:
            self._free.put_nowait(client)

    async def aclose(self) -> None:
        for client in self._all:
            await client.aclose()
