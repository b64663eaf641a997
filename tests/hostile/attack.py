"""Sends one part of the attack after the other, and judges every answer."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.hostile.requests import Trick

# What no body may contain: addresses of objects, tracebacks, paths on the server.
LEAKS = re.compile(
    rb"0x[0-9a-f]{6,}|Traceback|File \"|site-packages|/(?:tmp|home|root|usr|etc|proc|opt|var|dev)/"
)
# HTTP's own refusals: method not implemented, version not supported.
OF_THE_SERVER = {501, 505}
PARALLEL = 6
TIMEOUT_S = 60.0
QUIET_S = 1.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# The type, flags and stream of the SETTINGS frame with which HAProxy answers HTTP/2's preface; its
# length stands before them (RFC 9113, 4.1).
HTTP_2 = b"\4\0\0\0\0\0"


@dataclass
class Part:
    """What was tried, what was answered, and what should not have been."""

    name: str
    tried: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def judge(self, what: str, status: int, body: bytes, *, allowed: Iterable[int]) -> None:
        self.tried += 1
        self.answers[code(status, body)] += 1
        if status not in allowed:
            self.problems.append(f"{what}: {status} {body[:200]!r}")
        leak = LEAKS.search(body)
        if leak is not None and status != 200:
            self.problems.append(f"{what}: the body has {leak[0]!r}")

    def fail(self, what: str, problem: str) -> None:
        self.tried += 1
        self.answers[problem] += 1
        self.problems.append(f"{what}: {problem}")


def code(status: int, body: bytes) -> str:
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, LookupError, TypeError):
        return str(status)


async def in_parallel(tasks: Iterable[Callable[[], Awaitable[None]]]) -> None:
    turn = asyncio.Semaphore(PARALLEL)

    async def one(task: Callable[[], Awaitable[None]]) -> None:
        async with turn:
            await task()

    await asyncio.gather(*(one(task) for task in tasks))


class Attack:
    """An attack on the service at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def send_images(
        self, part: Part, images: Iterable[tuple[str, bytes]], *, allowed: set[int]
    ) -> Part:
        """Each image as a body of its own."""

        def task(name: str, data: bytes) -> Callable[[], Awaitable[None]]:
            async def send() -> None:
                headers = {"Content-Type": "image/jpeg"}
                await self._post(part, name, allowed, content=data, headers=headers)

            return send

        await in_parallel(task(name, data) for name, data in images)
        return part

    async def send_items(
        self, part: Part, items: Iterable[tuple[str, dict[str, str]]], *, allowed: set[int]
    ) -> Part:
        """Each item in JSON."""

        def task(name: str, item: dict[str, str]) -> Callable[[], Awaitable[None]]:
            async def send() -> None:
                content = json.dumps({"input": item}).encode()
                headers = {"Content-Type": "application/json"}
                await self._post(part, name, allowed, content=content, headers=headers)

            return send

        await in_parallel(task(name, item) for name, item in items)
        return part

    async def upload_at_once(self, part: Part, data: bytes, number: int) -> Part:
        """`number` uploads of `data`, all at the same time."""
        headers = {"Content-Type": "image/jpeg"}
        limits = httpx.Limits(max_connections=number)
        async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:

            async def one(index: int) -> None:
                await self._post(
                    part, f"upload {index}", {200, 429}, client, content=data, headers=headers
                )

            await asyncio.gather(*(one(index) for index in range(number)))
        if not part.answers["429 overloaded"]:
            part.problems.append("all of them were let in at once")
        return part

    async def send_tricks(self, part: Part, tricks: Iterable[Trick]) -> Part:
        """Each over a connection of its own."""
        await in_parallel(partial(self._trick, part, trick) for trick in tricks)
        return part

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(
        self,
        part: Part,
        name: str,
        allowed: set[int],
        client: httpx.AsyncClient | None = None,
        **request: Any,
    ) -> None:
        try:
            response = await (client or self._client).post(f"{self.url}/v1/embeddings", **request)
        except httpx.HTTPError as error:
            part.fail(name, f"dropped ({type(error).__name__})")
            return
        part.judge(name, response.status_code, response.content, allowed=allowed)

    async def _trick(self, part: Part, trick: Trick) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._exchange(trick.data)
        except TimeoutError:
            part.fail(trick.name, "timed out")
            return
        if answer[3:9] == HTTP_2:
            part.tried += 1
            part.answers["HTTP/2"] += 1
            return
        answer = answer.removeprefix(CONTINUE)
        head, _, body = answer.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if found is None:
            part.fail(trick.name, "dropped" if not answer else f"not HTTP: {answer[:60]!r}")
            return
        allowed = {*range(200, 500), *OF_THE_SERVER}
        part.judge(trick.name, int(found[1]), body, allowed=allowed)

    async def _exchange(self, data: bytes) -> bytes:
        """What comes back, until nothing more does. The client keeps its side open."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        parts: list[bytes] = []
        try:
            with suppress(OSError):  # it may have answered already, and closed
                writer.write(data)
                await writer.drain()
            with suppress(ConnectionError, TimeoutError):
                while chunk := await asyncio.wait_for(
                    reader.read(65536), QUIET_S if parts else TIMEOUT_S
                ):
                    parts.append(chunk)
            return b"".join(parts)
        finally:
            writer.close()
