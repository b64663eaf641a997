"""The load: so many callers, each waiting for its answer (a closed loop). Meant for a process of
its own; knows no server.
"""

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


def run_closed_loop(*args: Any, **options: Any) -> Run:
    """`closed_loop`, for a process that has no event loop yet."""
    return asyncio.run(closed_loop(*args, **options))


async def closed_loop(
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

    async def caller() -> None:
        while time.perf_counter() < stop:
            await send()

    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(caller() for _ in range(callers)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    run.cpu_s = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    run.seconds = max(last - first, 1e-9)
    return run
