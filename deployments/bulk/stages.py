"""How fast each stage was, how busy, and which of them was the bottleneck.

Each block of rows carries what was spent on it, so that what is done twice after a failure counts
once. Knows nothing of Ray.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """The work of one stage on one block of rows."""

    stage: str
    rows: int
    busy_s: float
    began: float
    """Seconds since the epoch, as the clocks of all machines have it."""
    ended: float

    @classmethod
    def since(cls, began: float, stage: str, rows: int, busy_s: float) -> "Spent":
        return cls(stage, rows, busy_s, began, time.time())


class BusyClock:
    """Measures the time in which at least one thing is under way. For one event loop."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since = 0.0
        self._busy_s = 0.0

    def __enter__(self) -> None:
        if not self._under_way:
            self._since = time.monotonic()
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._busy_s += time.monotonic() - self._since

    def take(self) -> float:
        """Busy seconds since the last call."""
        now = time.monotonic()
        if self._under_way:
            self._busy_s += now - self._since
            self._since = now
        busy_s, self._busy_s = self._busy_s, 0.0
        return busy_s


class Stage(NamedTuple):
    """One stage over the whole run."""

    name: str
    rows: int
    workers: int
    images_per_s: float
    """What all its workers would do if they never waited for another stage."""
    busy: float
    """The part of the time in which they worked, from 0 to 1."""


def stages(spent: Iterable[Mapping[str, Any]], *, workers: Mapping[str, int]) -> list[Stage]:
    """One row for each stage of `workers` that did anything."""
    parts = [Spent(**part) for part in spent]
    found = []
    for name, number in workers.items():
        own = [part for part in parts if part.stage == name]
        busy_s = sum(part.busy_s for part in own)
        if not own or busy_s <= 0:
            continue
        rows = sum(part.rows for part in own)
        window_s = max(part.ended for part in own) - min(part.began for part in own)
        found.append(
            Stage(
                name,
                rows,
                number,
                images_per_s=rows / busy_s * number,
                busy=min(1.0, busy_s / (max(window_s, 1e-9) * number)),
            )
        )
    return found
