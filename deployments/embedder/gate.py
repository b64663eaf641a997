"""The gate in front of the model, which fills its batches.

A plain object: it knows neither Ray nor any engine. `deployment` puts `@serve.batch` behind it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deployments.embedder.batch_queue import BatchQueue, Piece, Waiting
from deployments.embedder.batch_time import BatchTime
from deployments.wire import QueueState, Stack, StackVectors, Vectors


@dataclass(slots=True, eq=False)
class _Submitted(Waiting):
    """A stack and its vectors, which come in parts."""

    arrived: float = field(default_factory=time.monotonic)
    started: float = 0.0
    parts: list[tuple[int, Vectors]] = field(default_factory=list)
    result: asyncio.Future[StackVectors] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def finish(self, start: int, part: Vectors | Exception) -> None:
        if self.is_over:
            return
        if isinstance(part, Exception):
            self.is_over = True
            self.result.set_exception(part)
            return
        self.parts.append((start, part))
        if sum(len(vectors) for _, vectors in self.parts) == len(self.stack):
            self.is_over = True
            self.parts.sort(key=lambda part: part[0])
            vectors = np.concatenate([vectors for _, vectors in self.parts])
            queue_ms = (self.started - self.arrived) * 1e3
            model_ms = (time.monotonic() - self.started) * 1e3
            self.result.set_result(StackVectors(vectors, queue_ms, model_ms))


class Work(NamedTuple):
    """What a replica reports for scaling, in seconds of its own time."""

    accepted_s: float = 0.0
    """All items since it started."""
    refused_s: float = 0.0
    """All items that the ingress had to refuse meanwhile."""
    backlog_s: float = 0.0
    """The items that wait or are being computed."""
    batch_s: float = 0.0
    """A full batch."""


class Gate:
    """Holds stacks back while the model is busy, then lets one full batch through at once.

    `@serve.batch` alone forms its batches before it waits for the model, so small ones queue up
    instead of merging (measured: 37 images/s, against 84 with the gate). Each of `lanes` loops
    takes at most a batch's worth of waiting items, hands every piece to `run` in the same iteration
    of the event loop, where `@serve.batch` joins them again, and waits for all of them.
    """

    def __init__(
        self,
        run: Callable[[Stack], Awaitable[Vectors]],
        *,
        lanes: int,
        max_batch_size: int,
        linger_s: float,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.linger_s = linger_s
        self._run = run
        self._item_s = 0.0  # the model's average time for one
        self._full_item_s = 0.0  # and in batches that were at least half full
        self._batch_time = BatchTime()
        self._accepted_s = 0.0
        self._refused_s = 0.0
        self._running = 0
        self._queue = BatchQueue()
        self._arrival = asyncio.Event()
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(lanes)]

    async def submit(
        self, stack: Stack, tenant: str | None = None, *, refused: float = 0.0
    ) -> StackVectors:
        """A stack of N >= 1 items to its vectors. Cancelling it drops what is still queued.

        `refused` is how many more items would have been submitted, had there been room for them.
        """
        if not len(stack):
            raise ValueError("a stack has at least one item")
        each_s = self._batch_s / self.max_batch_size
        self._accepted_s += len(stack) * each_s
        self._refused_s += refused * each_s
        due = time.monotonic() + len(stack) * self._item_s
        submitted = _Submitted(stack, tenant, due)
        self._queue.put(submitted)
        self._arrival.set()
        try:
            return await submitted.result
        finally:
            submitted.is_over = True

    def state(self) -> QueueState:
        """How much waits here, and for how long. Small batches take longer for each item, so they
        count only while nothing else is known."""
        item_s = (self._full_item_s or self._item_s) / len(self._lanes)
        return QueueState(waiting=len(self._queue) + self._running, item_s=item_s)

    def work(self) -> Work:
        """The work so far, as if all batches were full."""
        batch_s = self._batch_s
        waiting = len(self._queue) + self._running
        return Work(
            accepted_s=self._accepted_s,
            refused_s=self._refused_s,
            backlog_s=waiting * batch_s / self.max_batch_size,
            batch_s=batch_s,
        )

    @property
    def _batch_s(self) -> float:
        """Seconds between full batches, which run side by side in all lanes."""
        return self._batch_time.seconds(self.max_batch_size) / len(self._lanes)

    def check(self) -> None:
        """Raises RuntimeError if a lane has ended, which only a bug can cause."""
        for lane in self._lanes:
            if lane.done():
                raise RuntimeError(f"a lane of the batch gate has ended: {lane!r}")

    async def _lane(self) -> None:
        while True:
            await self._arrival.wait()
            pieces = self._queue.next(self.max_batch_size)
            if not len(self._queue):
                self._arrival.clear()
            if not pieces:
                continue
            items = sum(len(piece.stack) for piece in pieces)
            self._running += items
            began = time.monotonic()
            if all(await asyncio.gather(*map(self._run_piece, pieces))):
                took_s = time.monotonic() - began
                self._batch_time.took(items, took_s)
                self._took(took_s / items, is_full=2 * items >= self.max_batch_size)
            if len(self._queue) < self.max_batch_size:
                await asyncio.sleep(self.linger_s)

    def _took(self, item_s: float, *, is_full: bool) -> None:
        self._item_s += 0.2 * (item_s - self._item_s)
        if is_full:
            self._full_item_s += (0.2 if self._full_item_s else 1.0) * (item_s - self._full_item_s)

    async def _run_piece(self, piece: Piece) -> bool:
        """Whether the model has embedded it. A failure would pass for a fast model."""
        submitted = piece.waiting
        assert isinstance(submitted, _Submitted)  # noqa: S101  (nothing else is put)
        submitted.started = submitted.started or time.monotonic()
        try:
            part: Vectors | Exception = await self._run(piece.stack)
        except Exception as error:  # belongs to the callers of this batch, not to the lane
            part = error
        finally:
            self._running -= len(piece.stack)  # before its caller asks for the state
        submitted.finish(piece.start, part)
        return not isinstance(part, Exception)
