"""The model alone, in the engine that runs it fastest here: pixels in, vectors out.

What no server can exceed. It decodes nothing and talks to nobody. Every engine has a process of its
own, which does nothing between two measurements.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.engines import ENGINES, Bare, Settings
from deployments.threads import thread_count
from deployments.wire import Pixels

# Batches of 8 side by side, beside the numbers that are sizes of one batch.
STREAMS = 0

_engine: Bare | None = None
_pixels: Pixels = np.empty(0, np.uint8)


class Rate(NamedTuple):
    images_per_s: float
    batch_ms: float
    """The median time of one batch; for STREAMS, the time by which batches follow one another."""


class BareModel:
    """The fastest of the engines that run the model in a precision which raylens would choose."""

    def __init__(self, folder: Path, precision: str, scratch: Path) -> None:
        chosen = _chosen(folder, precision)
        contenders = {
            name: _Process(name, Settings(folder, "image", thread_count("auto"), scratch))
            for name in ENGINES
            if chosen in name and ("compiled" in name or "torch" not in name)
        }
        seconds = {name: best(it.measure((8, STREAMS), 4.0)) for name, it in contenders.items()}
        self.contenders = seconds
        self.runs_in = max(seconds, key=lambda name: seconds[name])
        for name, it in contenders.items():
            if name != self.runs_in:
                it.close()
        self._process = contenders[self.runs_in]

    def measure(self, batches: Sequence[int], seconds: float) -> dict[int, Rate]:
        """Images/s and latency at each batch size."""
        return self._process.measure(batches, seconds)

    def close(self) -> None:
        self._process.close()


class _Process:
    def __init__(self, name: str, settings: Settings) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        self._pool.submit(_load, name, settings).result()

    def measure(self, batches: Sequence[int], seconds: float) -> dict[int, Rate]:
        return self._pool.submit(_measure, batches, seconds / len(batches)).result()

    def close(self) -> None:
        self._pool.shutdown()


def best(rates: Mapping[int, Rate]) -> float:
    """Images/s at the batch size that suits the model best."""
    return max(rate.images_per_s for rate in rates.values())


def _chosen(folder: Path, precision: str) -> str:
    """The precision that raylens runs the model in here."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # which takes torch with it
        return pool.submit(_prepare, folder, precision).result()


def _prepare(folder: Path, precision: Any) -> str:
    from deployments.models.export import prepare
    from deployments.settings import ModelSettings

    return prepare(ModelSettings(id=str(folder), precision=precision))[1].precision


def _load(name: str, settings: Settings) -> None:
    global _engine, _pixels
    from deployments.models import exported
    from deployments.settings import ModelSettings

    _engine = ENGINES[name](settings)
    export = exported.find(ModelSettings(id=str(settings.folder)))
    assert export is not None  # noqa: S101
    _pixels = export.probes().pixels


def _measure(batches: Sequence[int], seconds: float) -> dict[int, Rate]:
    assert _engine is not None  # noqa: S101
    rates = {}
    for size in batches:
        stack = np.ascontiguousarray(np.resize(_pixels, (size or 8, *_pixels.shape[1:])))
        _engine.run(stack)
        if size == STREAMS:
            _engine.streams(stack, 0.1)
            per_s = _engine.streams(stack, seconds)
            rates[size] = Rate(8 * per_s, 1e3 / per_s)
            continue
        times: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(times) < 3:
            before = time.perf_counter()
            _engine.run(stack)
            times.append(time.perf_counter() - before)
        rates[size] = Rate(size * len(times) / sum(times), float(np.median(times)) * 1e3)
    return rates
