"""raylens's own engine, fed from memory, beside the bare model: what threads, streams and copies
cost, and how much of the GPU is used."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import models
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.encoder import Built, rate, shares
from benchmarks.gpu.models import Geometry
from benchmarks.gpu.report import Row
from benchmarks.gpu.run import Run
from benchmarks.gpu.timeline import watched
from deployments.models.engines.torch import TorchEngine
from deployments.settings import ModelSettings
from deployments.wire import Pixels

# Writing 1.7 GB, reading it, trying precisions.
_LOADING_S = 15.0


def measure(run: Run, budget: Budget) -> None:
    for geometry, part in shares(run, budget):
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
            _geometry(run, part, geometry, Path(folder), runner)


def _geometry(
    run: Run, budget: Budget, geometry: Geometry, folder: Path, runner: asyncio.Runner
) -> None:
    named: Row = {"phase": "engine", "geometry": geometry.name}
    engines: list[TorchEngine] = []

    def load() -> Row:
        models.write(geometry, folder, run.device.name)
        settings = ModelSettings(
            id=str(folder), device="cuda" if run.device.is_gpu else "cpu", threads=1
        )
        began = time.perf_counter()
        engine = runner.run(TorchEngine.load(settings, reason="torch, for this benchmark"))
        engines.append(engine)
        return {"load_s": round(time.perf_counter() - began, 2), "lanes": engine.lanes}

    needs_s = 0.0 if run.quick else _LOADING_S
    if run.row({**named, "mode": "load"}, load, budget=budget, needs_s=needs_s) is None:
        return
    (engine,) = engines
    built = Built(geometry, run.device)
    for size in run.batches[1:] if run.quick else (1, 8, 32, 64, 128):

        def compare(size: int = size) -> Row:
            return _compare(run, built, engine, runner, size)

        row = {**named, "precision": engine.loaded.precision, "batch": size}
        run.row(row, compare, budget=budget, needs_s=0.0 if run.quick else 6.0)


def _compare(run: Run, built: Built, engine: TorchEngine, runner: asyncio.Runner, size: int) -> Row:
    seconds = 0.02 if run.quick else 1.0
    tower, on_device = built.tower(engine.loaded.precision), built.pixels(size)
    with torch.inference_mode():
        bare = rate(lambda: tower(on_device), size, run.device, seconds)["images_per_s"]
    shape = (size, *engine.loaded.pixels.height_width, 3)
    stack = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def fed(callers: int, seconds: float) -> float:
        return runner.run(_fed(engine, stack, callers, seconds))

    fed(2 * engine.lanes, seconds / 4)
    alone, all_lanes = fed(1, seconds), fed(2 * engine.lanes, seconds)
    found: dict[str, Any] = {
        "bare_images_per_s": bare,
        "one_caller_images_per_s": round(alone, 1),
        "images_per_s": round(all_lanes, 1),
        "of_bare": round(all_lanes / bare, 3),
        "of_one_caller": round(all_lanes / alone, 3),
    }
    if run.device.is_gpu:
        seen = watched(lambda: fed(2 * engine.lanes, 0.5))
        if seen is not None:
            found |= {"gpu_computing": seen.computing, "copies_hidden": seen.copies_hidden}
    return found


async def _fed(engine: TorchEngine, stack: Pixels, callers: int, seconds: float) -> float:
    """Images/s of so many callers, each of which sends its next batch when it has its vectors."""
    until = time.perf_counter() + seconds

    async def caller() -> int:
        number = 0
        while number == 0 or time.perf_counter() < until:
            number += len(await engine.encode(stack))
        return number

    began = time.perf_counter()
    numbers = await asyncio.gather(*(caller() for _ in range(callers)))
    return sum(numbers) / (time.perf_counter() - began)
