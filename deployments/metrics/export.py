"""Hands metrics to Ray, whose agent on each node offers them to Prometheus as `ray_raylens_…`.

All are gauges to Ray, under the names that Prometheus expects of counters and histograms; it does
not look at the type. Ray's own counters cannot begin at 0. Its histograms record each value by
itself, in the replica and again in the agent, and export a wrong sum (ray 2.60,
`record_histogram_aggregated_batch`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from ray.serve import metrics as serve_metrics

from deployments.metrics.declared import ReplicaMetrics
from deployments.metrics.kinds import Counter, Gauge, Histogram, Labels, Metric

Send = Callable[[], None]

# Ray's agent forgets a gauge that it has not heard of for twice RAY_metrics_report_interval_ms,
# which is 4 s under `raylens serve`. Health checks may come later than that on a busy machine.
EVERY_S = 1.0


class Exporter:
    """To be made at the beginning of a replica's constructor: Serve adds its tags then."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._replica = ReplicaMetrics()
        self._sends = [_sender(metric) for metric in (*metrics, *self._replica)]
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sends all, again and again, from the replica's loop; to be called when it is ready."""
        self._replica.started()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.flush()
            await asyncio.sleep(EVERY_S)

    def flush(self) -> None:
        """Sends all of them, changed or not, because Ray forgets what is not repeated."""
        for send in self._sends:
            # With no file left to open, a process cannot read its own numbers in /proc. It can
            # serve those that are connected, if a health check does not fail for this.
            with contextlib.suppress(OSError):
                send()

    def check(self) -> None:
        """Raises RuntimeError if it has ended, which only a bug can cause."""
        if self._task is not None and self._task.done():
            raise RuntimeError(f"the export of metrics has ended: {self._task!r}")


def _sender(metric: Metric) -> Send:
    match metric:
        case Counter():
            return _number_sender(metric, lambda: metric.values)
        case Gauge():
            return _number_sender(metric, metric.now)
        case Histogram():
            return _histogram_sender(metric)
    raise TypeError(f"{metric.name} is of no kind")


def _number_sender(metric: Metric, now: Callable[[], dict[Labels, float]]) -> Send:
    (gauge,) = _gauges(metric)

    def send() -> None:
        for labels, value in now().items():
            gauge.set(value, tags=_tags(metric.labels, labels))

    return send


def _histogram_sender(histogram: Histogram) -> Send:
    buckets, sums, counts = _gauges(histogram)
    ends = [*(f"{boundary:g}" for boundary in histogram.boundaries), "+Inf"]

    def send() -> None:
        for labels, found in histogram.values.items():
            tags = _tags(histogram.labels, labels)
            upto = [*accumulate(found.counts)]
            for end, count in zip(ends, upto, strict=True):
                buckets.set(count, tags={**tags, "le": end})
            sums.set(found.sum, tags=tags)
            counts.set(upto[-1], tags=tags)

    return send


def _gauges(metric: Metric) -> list[Any]:
    """Ray's gauge for each of its series."""
    return [
        serve_metrics.Gauge(
            name,
            description=metric.description,
            tag_keys=(*metric.labels, "le") if name.endswith("_bucket") else metric.labels,
        )
        for name in metric.series
    ]


def _tags(keys: Labels, values: Labels) -> dict[str, str]:
    return dict(zip(keys, values, strict=True))
