"""The race of engines: one model, bare, in every engine that could run it: `make bench-encoder`.

No Ray, no HTTP, no decoding: pixels or tokens in, vectors out, each engine in a process of its
own, which does nothing in another's turn. The engines take turns within every round, and a ratio is
the median over the rounds, so that whatever else the machine does weighs on all of them alike.
"""

import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import checkpoints
from benchmarks.engines import ENGINES, Bare, Settings, Vectors, probe
from benchmarks.machine import machine
from deployments.checkpoints.storage import user_cache
from deployments.models.probes import least_cosine
from deployments.threads import thread_count

REFERENCE = "torch float32"
# Long enough for the clock, short enough for the engines to share the machine's moods.
_TURN_S = 0.4
_STREAMS = "streams"
_PROBES = "probes.npy"

_engine: Bare | None = None
_stack = np.empty(0)


@dataclass
class Runner:
    """An engine in its process, and what it gave."""

    name: str
    pool: ProcessPoolExecutor
    cold_s: float
    warm_s: float
    memory_mb: float = 0.0
    anonymous_mb: float = 0.0
    cosine: float = 0.0
    rates: dict[str, list[float]] = field(default_factory=dict)


def main(
    model: Annotated[
        list[str] | None, typer.Option(help="Geometries of checkpoints.py, or what model.id takes.")
    ] = None,
    tower: Annotated[str, typer.Option(help="image or text.")] = "image",
    engine: Annotated[
        str, typer.Option(help="Only engines with one of these, by commas, in their name.")
    ] = "",
    batch: Annotated[list[int] | None, typer.Option(help="Items per forward pass.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 5,
    threads: Annotated[int, typer.Option(help="0: one per processor.")] = 0,
) -> None:
    """Races the engines and prints a table for each model."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    threads = threads or thread_count("auto")
    wanted = engine.split(",")
    names = [name for name in ENGINES if any(part in name for part in wanted)]
    console.print(machine())
    for one in model or ["efficientnet-lite0", "clip-vit-base-patch32"]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(one)
            if one in checkpoints.GEOMETRIES:
                folder = checkpoints.write(one, Path(scratch) / one)
            settings = Settings(folder, tower, threads, Path(scratch))  # type: ignore[arg-type]
            os.environ.setdefault("HF_HOME", str(user_cache() / "huggingface"))
            os.environ["XDG_CACHE_HOME"] = scratch  # every engine begins with nothing
            with _process() as pool:
                pool.submit(_make_probes, settings).result()
            sizes = batch or [1, 8, 32]
            runners = race(settings, names, sizes, rounds, console)
            console.print(table(runners, sizes, f"{one}, {tower}, {threads} threads"))
    console.print(
        f"Items/s, median of {rounds} rounds, and how many times those of {REFERENCE} in the same "
        f"round; streams: {threads} batches of 8 side by side, a thread each. Cosine: the lowest "
        f"with {REFERENCE}'s vectors of 8 probes. Ready: a process from nothing to its first "
        "vectors, the first time and a later one. Memory: resident, and what of it is anonymous."
    )


def race(
    settings: Settings, names: list[str], sizes: list[int], rounds: int, console: Console
) -> list[Runner]:
    runners: list[Runner] = []
    reference: Vectors | None = None
    for name in names:
        with console.status(f"Loading {name}"):
            try:
                runner, vectors = _start(name, settings)
            except Exception as error:  # an engine that cannot take a model is a result as well
                console.print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
                continue
        reference = vectors if reference is None else reference
        runner.cosine = least_cosine(vectors, reference)
        runners.append(runner)
    for number in range(rounds):
        with console.status(f"Round {number + 1}"):
            for size in (*map(str, sizes), _STREAMS):
                for runner in runners if number % 2 == 0 else runners[::-1]:
                    rate = runner.pool.submit(_measure, size).result()
                    runner.rates.setdefault(size, []).append(rate)
    for runner in runners:
        runner.pool.shutdown()
    return runners


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def _start(name: str, settings: Settings) -> tuple[Runner, Vectors]:
    """The engine twice: the first time it makes what it keeps on disk."""
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        pool = _process()
        try:
            vectors, memory, anonymous = pool.submit(_load, name, settings).result()
        except BaseException:
            pool.shutdown()
            raise
        times.append(time.perf_counter() - began)
        if len(times) == 1:
            pool.shutdown()
    cold_s, warm_s = times
    return Runner(name, pool, cold_s, warm_s, memory, anonymous), vectors


def _load(name: str, settings: Settings) -> tuple[Vectors, float, float]:
    global _engine, _stack
    _engine = ENGINES[name](settings)
    _stack = np.load(settings.scratch / _PROBES)
    vectors = _engine.run(_stack)
    found = psutil.Process().memory_info().rss / 1e6
    rollup = Path("/proc/self/smaps_rollup").read_text()
    anonymous = int(rollup.partition("Anonymous:")[2].split()[0]) * 1024 / 1e6
    return vectors, found, anonymous


def _make_probes(settings: Settings) -> None:
    from deployments.models.encoder import Encoder
    from deployments.settings import ModelSettings

    encoder = Encoder.load(
        ModelSettings(id=str(settings.folder), precision="float32", device="cpu")
    )
    np.save(settings.scratch / _PROBES, probe(encoder, settings.tower))


def _measure(size: str) -> float:
    """Items/s. The first pass of a size is not counted."""
    assert _engine is not None  # noqa: S101
    if size == _STREAMS:
        stack = np.ascontiguousarray(np.resize(_stack, (8, *_stack.shape[1:])))
        _engine.streams(stack, 0.05)
        return 8 * _engine.streams(stack, 2 * _TURN_S)
    stack = np.ascontiguousarray(np.resize(_stack, (int(size), *_stack.shape[1:])))
    _engine.run(stack)
    passes = 0
    began = time.perf_counter()
    while passes == 0 or time.perf_counter() - began < _TURN_S:
        _engine.run(stack)
        passes += 1
    return len(stack) * passes / (time.perf_counter() - began)


def table(runners: list[Runner], sizes: list[int], title: str) -> Table:
    grid = Table(title=title, box=box.SIMPLE_HEAD)
    grid.add_column("engine", no_wrap=True)
    for size in (*map(str, sizes), _STREAMS):
        heading = size if size == _STREAMS else f"batch {size}"
        grid.add_column(heading, justify="right", no_wrap=True)
        grid.add_column("×", justify="right", style="bold", no_wrap=True)  # noqa: RUF001
    for heading in ("cosine", "ready s", "later s", "MB", "anonymous"):
        grid.add_column(heading, justify="right", no_wrap=True)
    first = runners[0]
    for runner in runners:
        cells = []
        for size, rates in runner.rates.items():
            ratios = [a / b for a, b in zip(rates, first.rates[size], strict=True)]
            cells += [f"{statistics.median(rates):.1f}", f"{statistics.median(ratios):.2f}"]
        cells += [f"{runner.cosine:.5f}", f"{runner.cold_s:.1f}", f"{runner.warm_s:.1f}"]
        grid.add_row(runner.name, *cells, f"{runner.memory_mb:.0f}", f"{runner.anonymous_mb:.0f}")
    return grid


if __name__ == "__main__":
    typer.run(main)
