"""What a running service does on its machine: images per second and waits, by how it is called.

Measures through HTTP, as callers would; the benchmarks that compare engines are in `benchmarks/`.
"""

import asyncio
import io
import itertools
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import numpy as np

from raylens.client.connections import Connections

# A run ends early rather than fill the memory of this machine.
_MOST_REQUESTS = 1_000_000
# The longest wait before a caller that was refused asks again.
_MOST_PAUSE_S = 2.0
# How long each load runs before it is measured.
_WARM_UP_S = 2.0


class Load(NamedTuple):
    """So many callers, each of which sends its next request when the last one is answered."""

    callers: int
    images: int
    """In each request."""

    @property
    def name(self) -> str:
        each = "1 image" if self.images == 1 else f"{self.images} images"
        return f"{self.callers} x {each}"


LOADS = (Load(1, 1), Load(16, 1), Load(64, 1), Load(1, 32), Load(4, 32))


@dataclass
class Run:
    """What one load gave. Times are those of whole requests."""

    load: Load
    seconds: float = 0.0
    waits_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    """What the service says of its own time, by stage (Server-Timing)."""
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def images_per_s(self) -> float:
        return len(self.waits_ms) * self.load.images / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.waits_ms, percent)) if self.waits_ms else float("nan")

    def as_json(self) -> dict[str, Any]:
        return {
            "callers": self.load.callers,
            "images_per_request": self.load.images,
            "images_per_s": round(self.images_per_s, 2),
            "p50_ms": round(self.percentile_ms(50), 2),
            "p99_ms": round(self.percentile_ms(99), 2),
            "stages_p50_ms": {
                stage: round(statistics.median(times), 2) for stage, times in self.stages_ms.items()
            },
            "failed": dict(self.failed),
        }


def photos(count: int = 16, width_height: tuple[int, int] = (640, 480)) -> list[bytes]:
    """JPEGs with as much detail as photos have (about 60 KB each at 640 x 480)."""
    from PIL import Image

    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(width_height, Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (width_height[1], width_height[0], 3))
        picture = Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def numbered(images: Sequence[bytes]) -> Iterator[bytes]:
    """The images again and again, each with other bytes, so that the service's cache knows none: a
    JPEG gets a comment behind its first marker, whatever else is followed by a few bytes."""
    token = time.time_ns()
    for number in itertools.count(token):
        image = images[number % len(images)]
        mark = number.to_bytes(8)
        if image[:2] == b"\xff\xd8":
            yield b"\xff\xd8\xff\xfe\x00\x0a" + mark + image[2:]
        else:
            yield image + mark


def _nothing(step: str) -> None:
    """Tells nobody."""


async def measure(
    connections: Connections,
    loads: Sequence[Load],
    seconds: float,
    images: Sequence[bytes],
    tell: Callable[[str], None] = _nothing,
) -> list[Run]:
    """Runs the loads one after the other, each for about `seconds` once it has warmed up.

    Each caller has a connection of its own; there must be enough of them. `tell` is told what comes
    next. Raises httpx.HTTPError if the service is gone.
    """
    runs = []
    for load in loads:
        tell(f"{load.name}, warming up")
        await _run(connections, load, min(_WARM_UP_S, seconds), images)
        tell(f"{load.name}, {seconds:g} s")
        runs.append(await _run(connections, load, seconds, images))
    return runs


async def _run(
    connections: Connections, load: Load, seconds: float, images: Sequence[bytes]
) -> Run:
    run = Run(load)
    endless = numbered(images)
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(load.callers):
                group.create_task(_call(connections, run, endless, until=began + seconds))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the others say the same
    run.seconds = time.monotonic() - began
    return run


async def _call(
    connections: Connections, run: Run, images: Iterator[bytes], *, until: float
) -> None:
    async with connections.one() as connection:
        while time.monotonic() < until and len(run.waits_ms) < _MOST_REQUESTS:
            await _request(connection, run, list(itertools.islice(images, run.load.images)))


async def _request(connection: httpx.AsyncClient, run: Run, images: Sequence[bytes]) -> None:
    began = time.monotonic()
    response = await connection.post(
        "/v1/embeddings",
        headers={"Accept": "application/x-npy"},
        files=[("file", image) for image in images],
    )
    took_ms = (time.monotonic() - began) * 1e3
    if response.status_code != 200:
        run.failed[_reason(response)] += 1
        await asyncio.sleep(_pause_s(response))
        return
    run.waits_ms.append(took_ms)
    timing = response.headers.get("Server-Timing", "")
    for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", timing):
        run.stages_ms.setdefault(stage, []).append(float(ms))


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code}"


def _pause_s(response: httpx.Response) -> float:
    retry_after = response.headers.get("Retry-After", "")
    return min(_MOST_PAUSE_S, float(retry_after) if retry_after.isdecimal() else 0.0)


def profile(model: Mapping[str, Any], runs: Sequence[Run], replicas: int) -> dict[str, Any]:
    """What `raylens plan` reads; `model` is its entry in `/v1/models`, `replicas` are its own."""
    described = ("id", "revision", "dimensions", "engine", "device", "precision")
    return {
        "model": {name: model[name] for name in described},
        "replicas": replicas,
        "cpus": os.cpu_count(),
        "runs": [run.as_json() for run in runs],
    }


def plot(runs: Sequence[Run], title: str, path: str) -> None:
    """Images per second and waits of all runs, as a PNG. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [run.load.name for run in runs]
    left.barh(names, [run.images_per_s for run in runs], color="#4c78a8")
    left.set_xlabel("images/s")
    right.barh(names, [run.percentile_ms(99) for run in runs], color="#dddddd", label="p99")
    right.barh(names, [run.percentile_ms(50) for run in runs], color="#f58518", label="p50")
    right.set_xlabel("ms for a request")
    right.set_yticklabels([])
    right.legend()
    for axes in (left, right):
        axes.invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
