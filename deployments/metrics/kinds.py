"""Counters, gauges and histograms as plain numbers, for use on one event loop.

Ray's own take 4 to 11 µs for each call, several times in every request. These take well under one;
`export` hands them to Ray once a second. Knows neither Ray nor what is counted.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Labels = tuple[str, ...]
"""The values of a metric's labels, in their order."""


class Metric:
    """A name, what it means, and its labels. Their values must be few: never a caller's text."""

    kind = ""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.name = name
        self.description = description
        self.labels = labels

    @property
    def series(self) -> list[str]:
        """What Ray is told that it is called; Prometheus sees a `ray_` before that."""
        return [self.name]


class Counter(Metric):
    """Only rises."""

    kind = "counter"

    def __init__(
        self, name: str, description: str, labels: Labels = (), *, known: Sequence[str] = ()
    ) -> None:
        """`known` are values of its only label. They are sent as 0 from the beginning: Prometheus
        sees no rise in a series that begins at 1."""
        super().__init__(name, description, labels)
        self.values: dict[Labels, float] = {(value,): 0 for value in known}
        if not labels:
            self.values[()] = 0

    @property
    def series(self) -> list[str]:
        return [f"{self.name}_total"]

    def add(self, number: float, *labels: str) -> None:
        self.values[labels] = self.values.get(labels, 0) + number


class Gauge(Metric):
    """A value of this moment."""

    kind = "gauge"

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        super().__init__(name, description, labels)
        self._reads: dict[Labels, Callable[[], float]] = {}

    def watch(self, read: Callable[[], float], *labels: str) -> None:
        """`read` is called for the value whenever that is sent."""
        self._reads[labels] = read

    def now(self) -> dict[Labels, float]:
        return {labels: read() for labels, read in self._reads.items()}


@dataclass(slots=True)
class Distribution:
    """One series of a histogram."""

    counts: list[int]
    """Of each bucket by itself; the last one has what is beyond all boundaries."""
    sum: float = field(default=0.0)


class Histogram(Metric):
    """How many values fell into each bucket, and their sum."""

    kind = "histogram"

    def __init__(
        self, name: str, description: str, boundaries: Sequence[float], labels: Labels = ()
    ) -> None:
        """`boundaries` rise; a value at one belongs to the bucket below."""
        super().__init__(name, description, labels)
        self.boundaries = tuple(boundaries)
        self.values: dict[Labels, Distribution] = {}

    @property
    def series(self) -> list[str]:
        return [f"{self.name}_{part}" for part in ("bucket", "sum", "count")]

    def observe(self, value: float, *labels: str) -> None:
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Distribution([0] * (len(self.boundaries) + 1))
        found.counts[bisect_left(self.boundaries, value)] += 1
        found.sum += value
