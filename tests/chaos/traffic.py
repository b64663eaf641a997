"""Steady traffic from a thread of its own, whether or not earlier requests have been answered."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp


@dataclass
class Outcome:
    """When a request began and ended, and its status or what went wrong with the connection."""

    began: float
    ended: float
    status: int | str

    @property
    def is_good(self) -> bool:
        return self.status == 200


@dataclass
class Traffic:
    """Sends one of `images` `per_second` times a second while it is entered, and then waits for the
    answers that are left."""

    url: str
    images: Sequence[bytes]
    per_second: float
    key: str | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        headers = {"Content-Type": "image/jpeg"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        connector = self._connector()
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers
        ) as session:
            began = time.monotonic()
            tasks: list[asyncio.Task[None]] = []
            while not self._stop.is_set():
                tasks.append(asyncio.create_task(self._one(session, len(tasks))))
                due = began + len(tasks) / self.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*tasks)

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        status: int | str
        try:
            status = await self._ask(session, number)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        self.outcomes.append(Outcome(began, time.monotonic(), status))

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> int | str:
        async with session.post(
            f"{self.url}/v1/embeddings", data=self.images[number % len(self.images)]
        ) as response:
            await response.read()
            return response.status

    @property
    def failed(self) -> dict[str, int]:
        return dict(Counter(str(o.status) for o in self.outcomes if not o.is_good))

    @property
    def good(self) -> int:
        return sum(o.is_good for o in self.outcomes)

    def p99_s(self) -> float:
        """Of the good answers."""
        took = sorted(o.ended - o.began for o in self.outcomes if o.is_good)
        return took[int(0.99 * len(took))] if took else float("inf")

    def longest_gap_s(self) -> float:
        """The longest time without a good answer."""
        ended = sorted(o.ended for o in self.outcomes if o.is_good)
        return max((b - a for a, b in itertools.pairwise(ended)), default=float("inf"))
