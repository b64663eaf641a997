"""The gate in front of the model, which fills its batches.

A plain object: it knows neither Ray nor any engine. `embedder.py` puts it into a deployment.
"""

import asyncio
import heapq
import itertools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.vectors import Vectors

Stack = NDArray[Any]
"""(N, …): pixels of N images or token ids of N texts."""


class Answer(NamedTuple):
    """What the model deployment gives for one stack of N items."""

    vectors: Vectors
    """(N, D) float32, as the model made them: not normalised."""
    queue_ms: float
    """From arrival to the moment the model took the first item."""
    model_ms: float
    """From that moment to the last vector."""
    identity: bytes = b""
    """The `ModelCard.identity` of the model that made them."""


class _Waiting:
    """One caller's stack and how much of it has been let through and answered."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.taken = 0
        self.parts: list[tuple[int, Vectors]] = []
        self.arrived = time.monotonic()
        self.started = 0.0
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def take(self, room: int) -> tuple[int, Stack]:
        """The next piece, of at most `room` items, and where it begins."""
        if self.taken == 0:
            self.started = time.monotonic()
        start = self.taken
        self.taken = min(start + room, len(self.stack))
        return start, self.stack[start : self.taken]

    def finish(self, start: int, part: Vectors | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(part, BaseException):
            self.answer.set_exception(part)
            return
        self.parts.append((start, part))
        if sum(len(vectors) for _, vectors in self.parts) == len(self.stack):
            self.parts.sort(key=lambda part: part[0])
            vectors = np.concatenate([vectors for _, vectors in self.parts])
            now = time.monotonic()
            self.answer.set_result(
                Answer(vectors, (self.started - self.arrived) * 1e3, (now - self.started) * 1e3)
            )


class Gate:
    """Holds stacks back while the model is busy, then lets one full batch through at once.

    `@serve.batch` alone cuts its batches before it waits for the model, so crumbs queue up
    instead of merging (measured: 37 images/s, against 84 with the gate). Each of `slots` lanes
    takes at most a batch's worth of waiting items, cutting stacks where the batch ends, hands
    every piece to `run` in the same turn of the event loop and waits until all are answered.

    A stack is due when it would be answered if the model had nothing else to do, and what is due
    first goes first. So a lone item passes the large stacks that came shortly before it, and no
    stack waits for ever. That is among the stacks of one caller, or of all who are not known;
    callers share each batch, so that who has much waiting makes only himself wait.
    """

    def __init__(
        self,
        run: Callable[[Stack], Awaitable[Vectors]],
        *,
        slots: int,
        max_batch_size: int,
        linger_s: float,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.linger_s = linger_s
        self._run = run
        self._item_s = 0.0  # how long the model takes for one, on average
        self._number = itertools.count()  # decides between stacks that are due together
        self._waiting: OrderedDict[str | None, list[tuple[float, int, _Waiting]]] = OrderedDict()
        self._arrival = asyncio.Event()
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(slots)]

    async def embed(self, stack: Stack, caller: str | None = None) -> Answer:
        """A stack of N >= 1 items to its Answer. Cancelling it drops what still waits."""
        waiting = _Waiting(stack)
        due = waiting.arrived + len(stack) * self._item_s
        heap = self._waiting.setdefault(caller, [])
        heapq.heappush(heap, (due, next(self._number), waiting))
        self._arrival.set()
        return await waiting.answer

    def check(self) -> None:
        """Raises RuntimeError when a lane has ended, which only a bug can make it do."""
        for lane in self._lanes:
            if lane.done():
                raise RuntimeError(f"a lane of the batch gate has ended: {lane!r}")

    async def _lane(self) -> None:
        while True:
            await self._arrival.wait()
            batch, items = self._next_batch()
            if not batch:
                continue
            began = time.monotonic()
            await asyncio.gather(*batch)
            self._item_s += 0.2 * ((time.monotonic() - began) / items - self._item_s)
            waiting = (entry[2] for heap in self._waiting.values() for entry in heap)
            if sum(len(w.stack) - w.taken for w in waiting) < self.max_batch_size:
                await asyncio.sleep(self.linger_s)

    def _next_batch(self) -> tuple[list[Coroutine[Any, Any, None]], int]:
        """What to await together, and how many items it has."""
        pieces = []
        room = self.max_batch_size
        callers = 0
        while room and self._waiting:
            callers = callers or len(self._waiting)  # whose turn is still to come in this round
            share = max(1, room // callers)
            callers -= 1
            caller, heap = self._waiting.popitem(last=False)
            while share and heap:
                waiting = heap[0][2]
                left = waiting.answer.done()  # the caller did, or an earlier piece failed
                if not left:
                    start, piece = waiting.take(share)
                    share -= len(piece)
                    room -= len(piece)
                    pieces.append(self._run_piece(waiting, start, piece))
                if left or waiting.taken == len(waiting.stack):
                    heapq.heappop(heap)
            if heap:
                self._waiting[caller] = heap  # behind all others
        if not self._waiting:
            self._arrival.clear()
        return pieces, self.max_batch_size - room

    async def _run_piece(self, waiting: _Waiting, start: int, piece: Stack) -> None:
        try:
            waiting.finish(start, await self._run(piece))
        except Exception as error:  # belongs to the callers of this batch, not to the lane
            waiting.finish(start, error)
