"""What waits for the model, and what its next batch is made of. Plain and synchronous.

Runs nothing and waits for nothing: `gate` does.
"""

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from deployments.fairness import equal_part
from deployments.wire import Stack


@dataclass(slots=True, eq=False)
class Waiting:
    """A tenant's stack, and how much of it has been taken."""

    stack: Stack
    tenant: str | None
    due: float
    """When it would be answered if the model had nothing else to do; on any one clock."""
    taken: int = 0
    is_over: bool = False
    """Whether nobody wants the rest any more."""


class Piece(NamedTuple):
    """A part of a stack that goes into one batch."""

    waiting: Waiting
    start: int
    """Where it begins in the stack."""
    stack: Stack


class BatchQueue:
    """Stacks by tenant. What is due first goes first, and tenants share each batch.

    So a lone item passes the large stacks that came shortly before it, no stack waits for ever,
    and a tenant with a long queue makes only himself wait.
    """

    def __init__(self) -> None:
        self._number = itertools.count()  # decides between stacks that are due together
        self._heaps: OrderedDict[str | None, list[tuple[float, int, Waiting]]] = OrderedDict()

    def put(self, waiting: Waiting) -> None:
        """Of at least one item."""
        heap = self._heaps.setdefault(waiting.tenant, [])
        heapq.heappush(heap, (waiting.due, next(self._number), waiting))

    def next(self, size: int) -> list[Piece]:
        """Pieces of at most `size` items together; none if nothing waits. Cuts a stack where the
        batch ends."""
        pieces: list[Piece] = []
        room = size
        tenants = 0  # whose turn is still to come in this round
        while room and self._heaps:
            tenants = tenants or len(self._heaps)
            part = equal_part(room, tenants)
            tenants -= 1
            tenant, heap = self._heaps.popitem(last=False)
            while part and heap:
                waiting = heap[0][2]
                if not waiting.is_over:
                    piece = _take(waiting, part)
                    part -= len(piece.stack)
                    room -= len(piece.stack)
                    pieces.append(piece)
                if waiting.is_over or waiting.taken == len(waiting.stack):
                    heapq.heappop(heap)
            if heap:
                self._heaps[tenant] = heap  # behind all others
        return pieces

    def __len__(self) -> int:
        """How many items wait."""
        waiting = (entry[2] for heap in self._heaps.values() for entry in heap)
        return sum(len(w.stack) - w.taken for w in waiting)


def _take(waiting: Waiting, most: int) -> Piece:
    start = waiting.taken
    waiting.taken = min(start + most, len(waiting.stack))
    return Piece(waiting, start, waiting.stack[start : waiting.taken])
