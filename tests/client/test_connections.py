"""Who gets a connection, and when it is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from raylens.client import connections
from raylens.client.connections import Connections

Sockets = set[asyncio.StreamWriter]


@asynccontextmanager
async def slow_server(takes_s: float = 0.0) -> AsyncIterator[tuple[str, Sockets]]:
    """Its address, and the connections that are open to it."""
    sockets: Sockets = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sockets.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(takes_s)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        sockets.remove(writer)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sockets


def opened(url: str, most: int) -> Connections:
    return Connections(most, trust_env=False, base_url=url)


async def get(connections: Connections) -> None:
    async with connections.one() as connection:
        await connection.get("/")


async def test_whoever_waits_has_a_turn() -> None:
    async def again_and_again(connections: Connections) -> None:
        while True:
            await get(connections)

    async with slow_server() as (url, _), aclosing(opened(url, 1)) as connections:
        busy = asyncio.create_task(again_and_again(connections))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            await get(connections)
        busy.cancel()


async def test_requests_that_are_given_up_leave_no_connection() -> None:
    async with slow_server() as (url, sockets), aclosing(opened(url, 1)) as connections:
        for steps in (*range(1, 40), *range(1, 40)):  # wherever it is by then
            request = asyncio.create_task(get(connections))
            for _ in range(steps):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
        await get(connections)
        await asyncio.sleep(0.1)
        assert len(sockets) == 1


async def test_connections_that_are_no_longer_used_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.2)
    async with slow_server(0.05) as (url, sockets), aclosing(opened(url, 20)) as found:
        await asyncio.gather(*(get(found) for _ in range(20)))
        assert len(sockets) == 20
        for _ in range(8):
            await get(found)
        await asyncio.sleep(0.05)
        assert len(sockets) == 1


async def test_closing_ends_requests_and_nothing_is_sent_afterwards() -> None:
    async with slow_server(0.5) as (url, sockets):
        connections = opened(url, 1)
        under_way = asyncio.create_task(get(connections))
        await asyncio.sleep(0.1)
        await connections.aclose()
        await asyncio.wait([under_way])
        assert under_way.exception() is not None
        await asyncio.sleep(0.5)
        assert not sockets
        with pytest.raises(RuntimeError, match="has been closed"):
            await get(connections)
