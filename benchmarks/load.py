"""The load: closed loop (so many callers, each waiting for its answer) or open loop (so many
requests a second, whatever becomes of them). Meant for a process of its own; knows no server.
"""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np


@dataclass
class Run:
    """What one run of the load saw, after its warm-up."""

    seconds: float = 0.0
    images: int = 0
    errors: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    """Of each request that was answered with 200."""
    cpu_s: float = 0.0
    """Of the load itself."""

    @property
    def rate(self) -> float:
        """Images/s."""
        return self.images / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms else float("nan")


def closed_loop(
    url: str,
    bodies: Sequence[bytes],
    *,
    images: int,
    callers: int,
    seconds: float,
    warm_up_s: float,
    headers: dict[str, str],
) -> Run:
    """`callers` at a time, each sending the next of `bodies`, of `images` images, when answered."""

    async def load(send: Callable[[], Awaitable[None]], stop: float) -> None:
        async def caller() -> None:
            while time.perf_counter() < stop:
                await send()

        await asyncio.gather(*(caller() for _ in range(callers)))

    return asyncio.run(_run(url, bodies, images, seconds, warm_up_s, headers, load))


def open_loop(
    url: str,
    bodies: Sequence[bytes],
    *,
    images: int,
    per_second: float,
    seconds: float,
    warm_up_s: float,
    headers: dict[str, str],
) -> Run:
    """A request begun every 1/`per_second` s, at random intervals (Poisson, fixed seed)."""

    async def load(send: Callable[[], Awaitable[None]], stop: float) -> None:
        random = np.random.default_rng(0)
        at = time.perf_counter()
        tasks = []
        while at < stop:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(send()))
            at += random.exponential(1 / per_second)
        await asyncio.gather(*tasks)

    return asyncio.run(_run(url, bodies, images, seconds, warm_up_s, headers, load))


async def _run(
    url: str,
    bodies: Sequence[bytes],
    images: int,
    seconds: float,
    warm_up_s: float,
    headers: dict[str, str],
    load: Callable[[Callable[[], Awaitable[None]], float], Awaitable[None]],
) -> Run:
    run = Run()
    sent = 0
    begin = time.perf_counter() + warm_up_s
    stop = begin + seconds
    # From the last answer of the warm-up to the last one before the end: between answers, so
    # that few large requests are not counted by halves.
    first = last = begin

    async def send() -> None:
        nonlocal sent, first, last
        body = bodies[sent % len(bodies)]
        sent += 1
        began = time.perf_counter()
        try:
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                good = response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            good = False
        ended = time.perf_counter()
        if ended < begin:
            first = last = ended
        elif not good:
            run.errors += 1
        elif ended <= stop:
            last = ended
            run.images += images
            run.latencies_ms.append((ended - began) * 1e3)

    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        await load(send, stop)
    used = resource.getrusage(resource.RUSAGE_SELF)
    run.cpu_s = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    run.seconds = max(last - first, 1e-9)
    return run
