"""The load, of two kinds: so many callers, each waiting for its answer (a closed loop), or so many
requests a second, whoever still waits (an open loop). Meant for a process of its own; knows no
server.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np


@dataclass(frozen=True)
class Requests:
    """What is sent, over and over, and where to."""

    url: str
    bodies: Sequence[bytes]
    images: int
    """In each body."""
    headers: dict[str, str]


@dataclass
class Run:
    """What one run of the load saw after its warm-up."""

    seconds: float = 0.0
    images: int = 0
    answered: int = 0
    """Images from the first request to the last answer, warm-up included."""
    errors: Counter[str] = field(default_factory=Counter)
    """How many requests came to what, other than to an answer with 200."""
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


class _Client:
    """Sends the bodies in turn."""

    def __init__(self, session: aiohttp.ClientSession, requests: Requests, run: Run) -> None:
        self._session = session
        self._requests = requests
        self._run = run
        self._sent = 0

    async def send(self) -> str | None:
        """What became of the next request, or None if it was answered with 200."""
        bodies = self._requests.bodies
        body = bodies[self._sent % len(bodies)]
        self._sent += 1
        url, headers = self._requests.url, self._requests.headers
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                await response.read()
                if response.status != 200:
                    return str(response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        self._run.answered += self._requests.images
        return None


@contextlib.asynccontextmanager
async def _client(requests: Requests, run: Run) -> AsyncIterator[_Client]:
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        before = time.process_time()
        yield _Client(session, requests, run)
        run.cpu_s = time.process_time() - before


def run_loop(loop: Callable[..., Awaitable[Run]], *args: Any, **options: Any) -> Run:
    """`closed_loop` or `open_loop`, for a process that has no event loop yet."""

    async def run() -> Run:
        return await loop(*args, **options)

    return asyncio.run(run())


async def closed_loop(requests: Requests, *, callers: int, seconds: float, warm_up_s: float) -> Run:
    """`callers` at a time, each sending the next request when its last one was answered.

    The warm-up lasts until every caller has been answered, and the time that counts until every one
    has been again: batches answer many at once, and a part of such a burst has no rate.
    """
    run = Run()
    begin = time.perf_counter() + warm_up_s
    # From the last answer of the warm-up to the last one that counts: between answers, so that
    # few large requests are not counted by halves.
    first = last = begin
    unanswered = set(range(callers))
    uncounted = set(range(callers))

    async def caller(number: int) -> None:
        nonlocal first, last
        while uncounted or time.perf_counter() < first + seconds:
            began = time.perf_counter()
            problem = await client.send()
            ended = time.perf_counter()
            if unanswered or ended < begin:
                unanswered.discard(number)
                first = last = ended
            elif uncounted or ended <= first + seconds:
                uncounted.discard(number)
                last = ended
                if problem is None:
                    run.images += requests.images
                    run.latencies_ms.append((ended - began) * 1e3)
                else:
                    run.errors[problem] += 1

    async with _client(requests, run) as client:
        await asyncio.gather(*(caller(number) for number in range(callers)))
    run.seconds = max(last - first, 1e-9)
    return run


async def open_loop(
    requests: Requests,
    *,
    per_second: float,
    seconds: float,
    warm_up_s: float,
    most_under_way: int = 256,
) -> Run:
    """Requests that are due at random moments, `per_second` on average, always the same ones.

    Each is sent when it is due, whether or not earlier ones were answered, and its latency counts
    from then, so that a server cannot look better by slowing the load down. With `most_under_way`
    a request is not sent, which is an error. Images count when they are answered within the time;
    latencies and errors are those of all requests that are due within it.
    """
    run = Run(seconds=seconds)
    random = np.random.default_rng(0)
    under_way: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    begin = due + warm_up_s
    stop = begin + seconds

    async def send(due: float) -> None:
        problem = await client.send()
        ended = time.perf_counter()
        if problem is None and begin <= ended <= stop:
            run.images += requests.images
        if due < begin:
            return
        if problem is None:
            run.latencies_ms.append((ended - due) * 1e3)
        else:
            run.errors[problem] += 1

    async with _client(requests, run) as client:
        while (due := due + random.exponential(1 / per_second)) < stop:
            await asyncio.sleep(due - time.perf_counter())
            if len(under_way) < most_under_way:
                task = asyncio.create_task(send(due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            elif due >= begin:
                run.errors["not sent"] += 1
        await asyncio.gather(*under_way)
    return run
