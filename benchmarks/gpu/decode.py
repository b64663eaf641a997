"""Photos to pixels on the CPU, as raylens's workers do it: how many cores feed the GPU."""

import os
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.report import Row
from benchmarks.gpu.run import Run
from benchmarks.photos import jpeg
from deployments.wire import PixelSpec

_WIDTH_HEIGHTS = ((640, 480), (4000, 3000))
_MAX_PIXELS = 100_000_000
# More would take too long to start, and say no more.
_MOST_PROCESSES = 16
_STARTING_S = 60.0

_together: Any = None


def measure(run: Run, budget: Budget) -> None:
    """One process, then one for each core; images/s of a core, since all do the same."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for width_height in _WIDTH_HEIGHTS[: 1 if run.quick else None]:
        data = jpeg(0, *width_height)
        for processes in (1,) if run.quick else sorted({1, min(cores, _MOST_PROCESSES)}):

            def decode(data: bytes = data, processes: int = processes) -> Row:
                return _decode(run, data, processes)

            named = {
                "phase": "decode",
                "photo": "{} x {}".format(*width_height),
                "processes": processes,
            }
            run.row(named, decode, budget=budget, needs_s=0.0 if run.quick else 10.0)


def _decode(run: Run, data: bytes, processes: int) -> Row:
    side = run.geometries[0].side
    seconds = 0.02 if run.quick else 2.0
    with _pool(processes, in_threads=run.quick) as pool:
        tasks = [pool.submit(_rate, data, side, seconds) for _ in range(processes)]
        rates = [task.result() for task in tasks]
    name = run.geometries[0].name
    rates_of_gpu = [
        row["images_per_s"]
        for row in run.report.rows
        if (row["phase"], row.get("geometry")) == ("encoder", name) and "without" not in row
    ]
    a_core = sum(rates) / processes
    found: Row = {"images_per_s_a_core": round(a_core, 1), "images_per_s": round(sum(rates), 1)}
    if rates_of_gpu:
        found[f"cores_for_{name}"] = round(max(rates_of_gpu) / a_core, 1)
    return found


def _pool(processes: int, *, in_threads: bool) -> Executor:
    if in_threads:
        return ThreadPoolExecutor(processes, "", _start, (threading.Barrier(processes),))
    # Not forked: a process that has used CUDA cannot be.
    context = get_context("spawn")
    return ProcessPoolExecutor(processes, context, _start, (context.Barrier(processes),))


def _start(together: Any) -> None:
    global _together
    import torch

    _together = together
    torch.set_num_threads(1)


def _rate(data: bytes, side: int, seconds: float) -> float:
    from deployments.pixels.decode import decode

    # As for a model in 16 bits, whose pixels may be resized by torch.
    spec = PixelSpec(resize=("exact", side, side), resample=3, crop=None, exact=False)
    decode(data, spec, max_pixels=_MAX_PIXELS)
    _together.wait(_STARTING_S)  # so each process has one task, and all run at once
    number, began = 0, time.perf_counter()
    while number == 0 or time.perf_counter() - began < seconds:
        decode(data, spec, max_pixels=_MAX_PIXELS)
        number += 1
    return number / (time.perf_counter() - began)
