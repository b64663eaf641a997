"""An LRU cache of vectors by content, bounded in bytes, with single flight.

Knows nothing of items or models: a key must identify everything that a vector depends on.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

from deployments.wire import ImageFacts, Vector

# Of Python's objects around a vector: key, entry, array, facts and place in the dict.
OVERHEAD_BYTES = 550


@dataclass(frozen=True, slots=True)
class Entry:
    """One item as the model encoded it."""

    vector: Vector
    """(D,), or (P, D) of a model that gives several, as the model computed it: not normalised."""
    tokens: int = 0
    """How many tokens the model read, of a text."""
    truncated: bool = False
    """Whether the text was longer than that."""
    image: ImageFacts | None = None

    @property
    def size(self) -> int:
        """Bytes in the cache."""
        return self.vector.nbytes + OVERHEAD_BYTES


class VectorCache:
    """Entries by key; the least recently used are evicted first. For use on one event loop."""

    def __init__(self, max_bytes: int) -> None:
        """0 turns off the cache and single flight."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[Entry]] = {}

    def get(self, key: bytes) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def flight(self, key: bytes) -> asyncio.Future[Entry] | None:
        """The entry, if another job is already computing it; cancelled if that fails.

        None means that the caller computes it, and must finish with `put` or `give_up`.
        """
        if not self._max_bytes:
            return None
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = asyncio.get_running_loop().create_future()
        return flight

    def put(self, key: bytes, entry: Entry) -> None:
        if not self._max_bytes:
            return
        # What does not fit by itself would evict all others.
        if key not in self._entries and entry.size <= self._max_bytes:
            # A copy, because a view would keep its whole batch in memory.
            entry = replace(entry, vector=entry.vector.copy())
            self._entries[key] = entry
            self._bytes += entry.size
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size
        flight = self._flights.pop(key, None)
        if flight is not None and not flight.done():
            flight.set_result(entry)

    def give_up(self, key: bytes) -> None:
        """The entry was not computed: cancels the flight for the jobs that wait for it."""
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.cancel()
