"""Load on a running service, for tests: many callers at once, or a steady rate."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from raylens.client.connections import Connections


@dataclass
class Outcome:
    """One request: when it began, how long it took, and what came back."""

    began_s: float
    took_s: float
    status: int
    body: Any


async def embed_image(client: httpx.AsyncClient, url: str, image: bytes) -> Outcome:
    began = time.monotonic()
    response = await client.post(
        f"{url}/v1/embeddings", content=image, headers={"content-type": "image/jpeg"}
    )
    return Outcome(
        began, time.monotonic() - began, response.status_code, orjson.loads(response.content)
    )


async def at_once(url: str, images: Sequence[bytes], *, callers: int) -> list[Outcome]:
    """Each image once, with `callers` requests under way; answers in the order of `images`."""
    connections = Connections(callers, timeout=60, trust_env=False)

    async def one(image: bytes) -> Outcome:
        async with connections.one() as connection:
            return await embed_image(connection, url, image)

    async with aclosing(connections):
        return await asyncio.gather(*(one(image) for image in images))


async def at_rate(
    url: str,
    images: Sequence[bytes],
    *,
    per_second: float,
    timeout_s: float,
    after: int,
    hurt: Callable[[], None],
) -> list[Outcome]:
    """Begins a request every 1/`per_second` s, whether or not earlier ones have been answered; once
    `after` of them have, calls `hurt`.

    A request that is not answered within `timeout_s` raises httpx.TimeoutException.
    """
    answered = 0

    async def one(client: httpx.AsyncClient, image: bytes) -> Outcome:
        nonlocal answered
        outcome = await embed_image(client, url, image)
        answered += 1
        if answered == after:
            hurt()
        return outcome

    async with httpx.AsyncClient(timeout=timeout_s) as client:
        begin = time.monotonic()
        tasks = []
        for number, image in enumerate(images):
            await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
            tasks.append(asyncio.create_task(one(client, image)))
        return await asyncio.gather(*tasks)
