"""Kept connections are used again, and what an origin drops is asked for once more."""

import asyncio
import socket

import pytest

from deployments.errors import FetchBadGateway
from tests.sources.origins import OK, Origin, answer, fetching

AT_ONCE = 24


class Forgetful(Origin):
    """Answers one request on each connection, all at the same time, and closes it at the second."""

    def __init__(self, *, resets: bool) -> None:
        super().__init__()
        self.resets = resets
        self.together = asyncio.Barrier(AT_ONCE)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        if self.connections <= AT_ONCE:
            await self.together.wait()
        writer.write(answer())
        await reader.read(1)  # of the second request
        if self.resets:
            linger = b"\1\0\0\0\0\0\0\0"  # on, 0 s: closing sends RST
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        writer.transport.abort() if self.resets else writer.close()


@pytest.mark.parametrize("resets", [False, True])
async def test_downloads_on_kept_connections_that_the_origin_drops_succeed(*, resets: bool) -> None:
    origin = Forgetful(resets=resets)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    async with fetching(origin, max_connections_per_host=AT_ONCE) as fetcher:
        for at_once in (AT_ONCE, AT_ONCE // 2):
            downloads = [fetcher.download(origin.url(f"/{i}")) for i in range(at_once)]
            assert await asyncio.gather(*downloads) == [b"pixels"] * at_once
    server.close()


async def test_an_origin_that_drops_every_connection_is_asked_twice(origin: Origin) -> None:
    async def drop(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        pass

    origin.answers["/"] = drop
    async with fetching(origin) as fetcher:
        with pytest.raises(FetchBadGateway, match="the connection broke"):
            await fetcher.download(origin.url())
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.0 200\r\nContent-Type: image/jpeg\r\n\r\n",
        OK + b"Connection: close\r\n\r\n",
    ],
)
async def test_origins_of_http_1_0_are_read(head: bytes, origin: Origin) -> None:
    async def close_after_it(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"pixels")

    origin.answers["/"] = close_after_it
    async with fetching(origin) as fetcher:
        for _ in range(3):
            assert await fetcher.download(origin.url()) == b"pixels"


async def test_a_kept_connection_that_ends_with_408_is_replaced(origin: Origin) -> None:
    async def late_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        origin.answers["/late"] = answer()
        writer.write(answer(b"", "408 Request Timeout", Connection="close"))

    origin.answers["/late"] = late_once
    async with fetching(origin) as fetcher:
        assert await fetcher.download(origin.url()) == b"pixels"
        assert await fetcher.download(origin.url("/late")) == b"pixels"
    assert origin.connections == 2
