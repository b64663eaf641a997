"""What a service's metrics say, and what has happened between two readings of them.

Knows the names of raylens's metrics and Prometheus's text; `cli/top.py` shows it.
"""

import math
import os
import re
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Labels = tuple[tuple[str, str], ...]

_LINE = re.compile(r"ray_(raylens_\w+)(?:\{(.*)\})? (\S+)(?: \d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# Errors that are no fault of the caller's.
FAILURES = frozenset({"internal", "unavailable", "deadline_exceeded"})


class Reading:
    """The values of all of raylens's metrics at one moment."""

    def __init__(self, texts: Iterable[str], at: float | None = None) -> None:
        """`texts` are Prometheus's, of one endpoint each; `at` is in seconds, of any clock."""
        self.at = time.monotonic() if at is None else at
        self.values: dict[tuple[str, Labels], float] = {}
        for text in texts:
            for line in text.splitlines():
                if match := _LINE.fullmatch(line):
                    name, labels, value = match.groups()
                    if (number := _number(value)) is not None:
                        self.values[name, tuple(_LABEL.findall(labels or ""))] = number

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """The labels and the value of each series of that name."""
        for (found, labels), value in self.values.items():
            if found == name:
                yield dict(labels), value

    def since(self, before: "Reading") -> "Reading":
        """How much each has risen: of a series that was not there, or has begun again, all."""
        risen = Reading((), self.at - before.at)
        for key, value in self.values.items():
            more = value - before.values.get(key, 0.0)
            risen.values[key] = more if more >= 0 else value
        return risen


@dataclass
class Deployment:
    """One deployment, all of its replicas together."""

    replicas: int = 0
    waiting: float = 0.0
    """Items: of an ingress those that are not answered, of a model those that are at it."""
    batch_size: float | None = None
    """Items, on average; None if there was no batch."""
    batch_s: float | None = None


@dataclass
class Figures:
    """What happened between two readings."""

    requests_per_s: float
    images_per_s: float
    texts_per_s: float
    p50_s: float | None
    """Half of all requests took no longer; None if there were none."""
    p99_s: float | None
    refused_per_s: float
    failed_per_s: float
    """Requests that failed through no fault of their callers."""
    bad_items_per_s: float
    cached: float | None
    """The part of items for which the model need not run."""
    deployments: dict[str, Deployment] = field(default_factory=dict)


def figures(before: Reading, after: Reading) -> Figures:
    risen = after.since(before)
    seconds = max(risen.at, 1e-3)
    outcomes = _by(risen, "raylens_requests_total", "outcome")
    items = [*risen.samples("raylens_items_total")]
    good = [(labels.get("source"), n) for labels, n in items if labels.get("outcome") == "ok"]
    lookups = _by(risen, "raylens_cache_lookups_total", "result")
    looked = sum(lookups.values())
    buckets = _by(risen, "raylens_request_seconds_bucket", "le")
    return Figures(
        requests_per_s=sum(outcomes.values()) / seconds,
        images_per_s=sum(n for source, n in good if source != "text") / seconds,
        texts_per_s=sum(n for source, n in good if source == "text") / seconds,
        p50_s=quantile(buckets, 0.5),
        p99_s=quantile(buckets, 0.99),
        refused_per_s=sum(_by(risen, "raylens_refusals_total", "limit").values()) / seconds,
        failed_per_s=sum(outcomes[outcome] for outcome in FAILURES) / seconds,
        bad_items_per_s=sum(n for labels, n in items if labels.get("outcome") != "ok") / seconds,
        cached=1 - lookups["miss"] / looked if looked else None,
        deployments=_deployments(risen, after),
    )


def _deployments(risen: Reading, now: Reading) -> dict[str, Deployment]:
    found: dict[str, Deployment] = defaultdict(Deployment)
    for labels, _ in now.samples("raylens_threads"):
        found[labels.get("deployment", "")].replicas += 1
    for name in ("raylens_backlog_items", "raylens_queue_items"):
        for deployment, number in _by(now, name, "deployment").items():
            found[deployment].waiting += number
    batches = _by(risen, "raylens_batch_size_count", "deployment")
    items = _by(risen, "raylens_batch_size_sum", "deployment")
    took = _by(risen, "raylens_batch_seconds_sum", "deployment")
    for deployment, number in batches.items():
        if number:
            found[deployment].batch_size = items[deployment] / number
    for deployment, number in _by(risen, "raylens_batch_seconds_count", "deployment").items():
        if number:  # those that have ended
            found[deployment].batch_s = took[deployment] / number
    return dict(sorted(found.items(), reverse=True))


def _by(reading: Reading, name: str, label: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for labels, value in reading.samples(name):
        sums[labels.get(label, "")] += value
    return sums


def quantile(buckets: dict[str, float], part: float) -> float | None:
    """As Prometheus's `histogram_quantile`: cumulative counts by `le`, and even within a bucket."""
    known = ((_number(end), count) for end, count in buckets.items())
    ends = sorted((end, count) for end, count in known if end is not None)
    total = ends[-1][1] if ends else 0.0
    if not total:
        return None
    low, below = 0.0, 0.0
    for end, count in ends:
        if count >= part * total:
            if end == float("inf"):
                return low
            return low + (end - low) * (part * total - below) / max(count - below, 1e-9)
        low, below = end, count
    return low


def _number(text: str) -> float | None:
    """None where there is none, or one that is not defined."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def local_endpoints() -> list[str]:
    """The metrics of the Ray that was started last on this machine, of each of its nodes here."""
    parent = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    session = Path(parent) / "ray" / "session_latest"
    ports = (file.read_text().strip() for file in session.glob("metrics_export_port_*"))
    return [f"http://127.0.0.1:{port}/metrics" for port in ports if _is_open(port)]


def _is_open(port: str) -> bool:
    """Not if its node has gone: Ray leaves the file behind."""
    if not port.isdecimal():
        return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0
