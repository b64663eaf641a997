"""How many items a client sends at a time: as many as the service answers within a second or two.

Plain objects: they send nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_END: Any = object()  # None may be an item, although a wrong one

# Together with eight requests in flight this keeps a client below 100 MB.
MOST_BYTES = 4 * 1024 * 1024
MOST_ITEMS = 256
# A batch that is answered sooner could be larger; one that takes longer might be refused as
# overload (after 5 s, by default) when others call as well.
QUICK_S, SLOW_S = 0.5, 2.0


class Window:
    """The number of items in flight, which follows how quickly the service answers.

    It grows by half after a quick batch, and shrinks after a slow or refused one.
    """

    def __init__(self, *, max_concurrency: int) -> None:
        self._max_concurrency = max_concurrency
        self._items = 4.0 * max_concurrency

    @property
    def batch_size(self) -> int:
        return max(1, min(MOST_ITEMS, int(self._items / self._max_concurrency)))

    @property
    def concurrency(self) -> int:
        """Fewer requests only when even lone items take long."""
        return max(1, min(self._max_concurrency, int(self._items)))

    def answered(self, took_s: float) -> None:
        if took_s < QUICK_S:
            self._scale(1.5)
        elif took_s > SLOW_S:
            self._scale(0.7)

    def refused(self) -> None:
        self._scale(0.5)

    def _scale(self, factor: float) -> None:
        most = float(MOST_ITEMS * self._max_concurrency)
        self._items = min(most, max(1.0, self._items * factor))


class Batches(Generic[T]):
    """Cuts an iterator into lists of at most `most_bytes`, or one item."""

    def __init__(
        self, items: Iterator[T], weight: Callable[[T], int], *, most_bytes: int = MOST_BYTES
    ) -> None:
        self._items = items
        self._weight = weight
        self._most_bytes = most_bytes
        self._next: list[T] = []

    def next(self, most: int) -> list[T]:
        """At most `most` items; none at the end."""
        batch, self._next = self._next, []
        total = sum(map(self._weight, batch))
        while len(batch) < most and total < self._most_bytes:
            item = next(self._items, _END)
            if item is _END:
                break
            total += self._weight(item)
            if batch and total > self._most_bytes:
                self._next = [item]
                break
            batch.append(item)
        return batch
