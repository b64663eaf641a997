"""An origin on the loopback, a fetcher that may fetch from it, and one that may not."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from deployments.sources.fetch import Fetcher
from tests.sources.origins import Origin, fetching


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    origin = Origin()
    listener = socket.create_server(("127.0.0.1", 0))
    origin.port = listener.getsockname()[1]
    server = await asyncio.start_server(origin.serve, sock=listener)
    yield origin
    server.close()
    await asyncio.wait_for(origin.idle.wait(), 2)


@pytest.fixture
async def fetcher(origin: Origin) -> AsyncIterator[Fetcher]:
    async with fetching(origin) as fetcher:
        yield fetcher


@pytest.fixture
async def guarded(origin: Origin) -> AsyncIterator[Fetcher]:
    """A fetcher without exceptions: it may dial public addresses only."""
    async with fetching(origin, allow_cidrs=()) as fetcher:
        yield fetcher
