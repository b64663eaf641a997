"""A bad answer from an origin becomes an error that repeats none of its text."""

import asyncio
import socket
from contextlib import suppress

import pytest

from deployments.errors import FetchBadGateway, FetchFailed, FetchTimeout, RaylensError
from deployments.sources.breaker import FAILURES
from deployments.sources.fetch import Fetcher
from tests.sources.origins import OK, Names, Origin, answer, fetching


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("201 Created", FetchFailed),
        ("204 No Content", FetchFailed),
        ("206 Partial Content", FetchFailed),
        ("300 Multiple Choices", FetchFailed),
        ("302 Without Location", FetchFailed),
        ("304 Not Modified", FetchFailed),
        ("400 Bad Request", FetchFailed),
        ("404 /etc/secret 10.0.0.7", FetchFailed),
        ("429 Too Many Requests", FetchFailed),
        ("499 Odd", FetchFailed),
        ("500 Oops", FetchBadGateway),
        ("503 Later", FetchBadGateway),
        ("599 Odd", FetchBadGateway),
        ("999 Go Away", FetchBadGateway),
    ],
)
async def test_a_status_other_than_200_is_an_error(
    status: str, error: type[RaylensError], fetcher: Fetcher, origin: Origin
) -> None:
    origin.answers["/"] = answer(b"" if status[:3] in ("204", "304") else b"secret text", status)
    with pytest.raises(error) as caught:
        await fetcher.download(origin.url())
    assert status[:3] in caught.value.message
    assert "secret" not in caught.value.message
    assert "10.0.0.7" not in caught.value.message


async def test_a_switch_of_protocols_is_a_failed_fetch(fetcher: Fetcher, origin: Origin) -> None:
    origin.answers["/"] = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    with pytest.raises(FetchFailed):
        await fetcher.download(origin.url())


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n",
        b"pixels",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npixels",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npixels",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\npixels",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 6\r\n\r\npixels",
    ],
)
async def test_cut_short_and_garbled_answers_are_a_bad_gateway(
    garbage: bytes, fetcher: Fetcher, origin: Origin
) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)

    origin.answers["/"] = speak
    with pytest.raises(FetchBadGateway) as caught:
        await fetcher.download(origin.url())
    assert "127.0.0.1" not in caught.value.message


async def test_a_connection_reset_in_the_body_is_a_bad_gateway(
    fetcher: Fetcher, origin: Origin
) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 100\r\n\r\npixels")
        await writer.drain()
        writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        writer.transport.abort()

    origin.answers["/"] = reset
    with pytest.raises(FetchBadGateway):
        await fetcher.download(origin.url())


async def test_a_refused_connection_is_a_bad_gateway(origin: Origin) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with fetching(origin, allow_ports=(port,)) as fetcher:
            with pytest.raises(FetchBadGateway):
                await fetcher.download(f"http://127.0.0.1:{port}/")


async def test_a_tls_failure_is_a_bad_gateway(origin: Origin) -> None:
    closed = asyncio.Event()

    async def not_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(not_tls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with fetching(origin, allow_ports=(port,)) as fetcher:
        with pytest.raises(FetchBadGateway) as caught:
            await fetcher.download(f"https://127.0.0.1:{port}/")
    assert "TLS" in caught.value.message
    server.close()
    await closed.wait()


async def test_a_name_that_is_not_found_is_a_bad_gateway(origin: Origin) -> None:
    names = Names(gone=[socket.gaierror(socket.EAI_NONAME, "10.0.0.7 said no")], empty=[[]])
    async with fetching(origin, resolver=names) as fetcher:
        with pytest.raises(FetchBadGateway) as caught:
            await fetcher.download(origin.url(host="gone"))
        assert "not found" in caught.value.message
        assert "10.0.0.7" not in caught.value.message


async def test_slow_pages_do_not_shut_their_host(origin: Origin) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    origin.answers["/slow"] = silent
    async with fetching(origin, timeout_s=0.1) as fetcher:
        for _ in range(FAILURES + 1):
            with pytest.raises(FetchTimeout):
                await fetcher.download(origin.url("/slow"))
        assert await fetcher.download(origin.url()) == b"pixels"


async def test_a_host_that_cannot_be_reached_is_not_dialled_for_a_while(origin: Origin) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with fetching(origin, allow_ports=(port,)) as fetcher:
            for _ in range(FAILURES):
                with pytest.raises(FetchBadGateway, match="could not be reached"):
                    await fetcher.download(f"http://127.0.0.1:{port}/")
            with pytest.raises(FetchBadGateway, match="lately"):
                await fetcher.download(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(("pause", "is_fetched"), [("before", True), ("within", False)])
async def test_the_idle_limit_counts_between_the_bytes_of_an_image(
    pause: str, is_fetched: bool, origin: Origin
) -> None:
    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, second = (b"", answer()) if pause == "before" else (answer()[:-3], b"els")
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.3)
        with suppress(OSError):
            writer.write(second)
            await writer.drain()

    origin.answers["/"] = slow
    async with fetching(origin, idle_timeout_s=0.1, timeout_s=10) as fetcher:
        if is_fetched:
            assert await fetcher.download(origin.url()) == b"pixels"
        else:
            with pytest.raises(FetchTimeout):
                await fetcher.download(origin.url())
