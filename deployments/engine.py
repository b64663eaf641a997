"""The model's threads, and the gate that fills their batches.

Plain objects: they know neither Ray nor torch. `embedder.py` puts them into a deployment.
"""

import asyncio
import heapq
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from deployments.vectors import Vectors

P = ParamSpec("P")
T = TypeVar("T")

# So long after batches last ran side by side, a lone item has the processors to itself. Among many
# callers of large photos the model is alone at times, but the processors are busy decoding, and
# threads that wait for each other would waste half of what they take.
QUIET_S = 1.0

Stack = NDArray[Any]
"""(N, …): pixels of N images or token ids of N texts."""


class ModelThread:
    """A thread that owns torch, or a share of it: it loads the model, warms it up or runs it.

    With a second team of threads in torch, OpenMP counts both against the processors and every
    operation pays for a wake-up (measured: 19 ms became 47 ms for one image).
    """

    def __init__(self, *, start: Callable[[], None] | None = None) -> None:
        """`start` is called in the thread before anything else."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=start)
        self._busy_since: float | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the model thread, after whatever it is busy with."""

        def job() -> T:
            self._busy_since = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._busy_since = None

        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def check(self, *, stuck_after_s: float) -> None:
        """Raises RuntimeError when the thread is stuck in one job or no longer takes jobs."""
        since = self._busy_since
        if since is not None:
            busy_s = time.monotonic() - since
            if busy_s > stuck_after_s:
                raise RuntimeError(f"the model thread has been stuck for {busy_s:.0f} s")
            return
        try:
            await asyncio.wait_for(self.run(lambda: None), timeout=stuck_after_s)
        except TimeoutError:
            raise RuntimeError("the model thread does not answer") from None


class Streams:
    """Batches side by side, each in a thread with its share of the processors.

    Without barriers between threads, what takes a processor away for a moment, decoding for
    example, holds up one batch and not all of them. Where nobody else has asked for a while, a
    lone item has all processors to itself: then one thread with all of them is faster.
    """

    def __init__(
        self, whole: ModelThread, shares: Sequence[ModelThread], *, quiet_s: float = QUIET_S
    ) -> None:
        self._quiet_s = quiet_s
        self._whole = whole
        self._shares = shares
        self._asked = 0  # batches that run or wait for a thread
        self._crowded = -math.inf  # when there was last more than one of them
        self._idle: asyncio.Queue[ModelThread] = asyncio.Queue()
        for thread in shares:
            self._idle.put_nowait(thread)

    async def run(self, function: Callable[[], T], *, items: int) -> T:
        """Runs `function`, a batch of so many items, in the next thread that is idle."""
        self._asked += 1
        if self._asked > 1:
            self._crowded = time.monotonic()
        try:
            held = [await self._idle.get()]
            thread = held[0]
            if items == 1 and self._asked == 1 and self._quiet():
                held += [self._idle.get_nowait() for _ in self._shares[1:]]
                thread = self._whole
            try:
                return await thread.run(function)
            finally:
                for share in held:
                    self._idle.put_nowait(share)
        finally:
            self._asked -= 1

    def _quiet(self) -> bool:
        return time.monotonic() - self._crowded > self._quiet_s

    async def check(self, *, stuck_after_s: float) -> None:
        """Raises RuntimeError when a thread is stuck in one job or no longer takes jobs."""
        for thread in (self._whole, *self._shares):
            await thread.check(stuck_after_s=stuck_after_s)


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
