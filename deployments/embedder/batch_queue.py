"""The queue in front of the model, which composes the next batch. Plain and synchronous.

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
    """A tenant's stack in the queue, and how much of it has been taken."""

    stack: Stack
    tenant: str | None
    due: float
    """When it would be done if the model had nothing else to do, on any clock all stacks share."""
    taken: int = 0
    is_over: bool = False
    """Whether the rest is no longer wanted."""


class Piece(NamedTuple):
    """A part of a stack that goes into one batch."""

    waiting: Waiting
    start: int
    """Where it begins in the stack."""
    stack: Stack


class BatchQueue:
    """Stacks by tenant: earliest due time first, with each batch split fairly between tenants.

    So a single item overtakes large stacks that came shortly before it, no stack starves, and a
    tenant with a long queue delays only itself.
    """

    def __init__(self) -> None:
        self._number = itertools.count()  # breaks ties between equal due times
        self._heaps: OrderedDict[str | None, list[tuple[float, int, Waiting]]] = OrderedDict()
        self._items = 0

    def put(self, waiting: Waiting) -> None:
        """Queues a stack of at least one item."""
        heap = self._heaps.setdefault(waiting.tenant, [])
        heapq.heappush(heap, (waiting.due, next(self._number), waiting))
        self._items += len(waiting.stack)

    def next(self, size: int) -> list[Piece]:
        """Pieces of at most `size` items in all; none if nothing waits. Splits stacks that do not
        fit."""
        pieces: list[Piece] = []
        free = size
        tenants = 0  # still to be served in this round
        while free and self._heaps:
            tenants = tenants or len(self._heaps)
            part = equal_part(free, tenants)
            tenants -= 1
            tenant, heap = self._heaps.popitem(last=False)
            while part and heap:
                waiting = heap[0][2]
                if not waiting.is_over:
                    piece = _take(waiting, part)
                    part -= len(piece.stack)
                    self._items -= len(piece.stack)
                    free -= len(piece.stack)
                    pieces.append(piece)
                if waiting.is_over or waiting.taken == len(waiting.stack):
                    self._items -= len(waiting.stack) - waiting.taken
                    heapq.heappop(heap)
            if heap:
                self._heaps[tenant] = heap  # at the end of the round
        return pieces

    def __len__(self) -> int:
        """How many items wait. Those that are no longer wanted count until their turn comes."""
        return self._items


def _take(waiting: Waiting, most: int) -> Piece:
    start = waiting.taken
    waiting.taken = min(start + most, len(waiting.stack))
    return Piece(waiting, start, waiting.stack[start : waiting.taken])
