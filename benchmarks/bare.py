"""The model alone, in a process of its own: pixels in, vectors out, as fast as it goes.

What no server can exceed. It decodes nothing and talks to nobody.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

_encoder = None


class BareModel:
    """One loaded encoder in another process, which does nothing between two measurements."""

    def __init__(self, folder: Path, precision: str, compile: str) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.runs_in: str = self._pool.submit(_load, folder, precision, compile).result()

    def measure(self, batches: Sequence[int], seconds: float) -> "dict[int, Rate]":
        """Images/s and latency at each batch size."""
        return self._pool.submit(_measure, batches, seconds / len(batches)).result()

    def close(self) -> None:
        self._pool.shutdown()


class Rate(NamedTuple):
    images_per_s: float
    batch_ms: float
    """The median time of one batch."""


def best(rates: Mapping[int, Rate]) -> float:
    """Images/s at the batch size that suits the model best."""
    return max(rate.images_per_s for rate in rates.values())


def _load(folder: Path, precision: str, compile: str) -> str:
    global _encoder
    from deployments.models.encoder import Encoder
    from deployments.settings import Model

    settings = Model(id=str(folder), precision=precision, compile=compile, device="cpu")
    _encoder = Encoder.load(settings)
    for size in (1, 8, 32):
        _encoder.warm_up(size)
    return f"{_encoder.precision}{', compiled' if _encoder.compiled else ''}"


def _measure(batches: Sequence[int], seconds: float) -> dict[int, Rate]:
    assert _encoder is not None  # noqa: S101
    rates = {}
    for size in batches:
        shape = (size, *_encoder.preprocessing.pixels.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        _encoder.embed(pixels)
        times: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(times) < 3:
            before = time.perf_counter()
            _encoder.embed(pixels)
            times.append(time.perf_counter() - before)
        rates[size] = Rate(size * len(times) / sum(times), float(np.median(times)) * 1e3)
    return rates
