"""A scripted web server and a scripted resolver, and a fetcher that may ask them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from deployments.settings import Fetch
from deployments.sources.fetch import Fetcher

CAP = 100_000
OK = b"HTTP/1.1 200 OK\r\n"

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Takes over a connection, which is closed when this returns."""
Found = Sequence[str] | OSError
"""The result of looking up a name: its addresses, or an error."""


def answer(body: bytes = b"pixels", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"moved", status, Location=location)


class Origin:
    """A server on the loopback with a scripted answer for each path; it counts connections."""

    port: int

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Speak] = {"/": answer()}
        self.connections = 0
        self.open_now = 0
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self.idle.clear()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.decode())
                self.asked.set()
                answer = self.answers[head.split(b" ")[1].decode()]
                if not isinstance(answer, bytes):
                    await answer(reader, writer)
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, KeyError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self.open_now -= 1
            if not self.open_now:
                self.idle.set()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


class Names(AbstractResolver):
    """A resolver with scripted answers for each name, one after the other; the last one stays."""

    def __init__(self, **answers: Sequence[Found]) -> None:
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        unknown: list[Found] = [socket.gaierror(socket.EAI_NONAME, "no such name")]
        answers = self.answers.get(host, unknown)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(addresses, OSError):
            raise addresses
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def fetching(
    origin: Origin,
    *,
    resolver: AbstractResolver | None = None,
    max_bytes: int = CAP,
    **overrides: Any,
) -> AsyncIterator[Fetcher]:
    options = {
        "allow_cidrs": ("127.0.0.0/8",),
        "allow_ports": (origin.port, 80, 443),
        "timeout_s": 5.0,
        "idle_timeout_s": 5.0,
        **overrides,
    }
    fetcher = Fetcher(Fetch.model_validate(options), max_bytes=max_bytes, resolver=resolver)
    await fetcher.start()
    try:
        yield fetcher
    finally:
        await fetcher.close()
