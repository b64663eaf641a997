"""Images/s of the bare encoder in each precision, compiled and not: `make bench-encoder`.

No Ray, no HTTP, no decoding: pixels in, vectors out, in one process that runs its memory and its
threads as a model replica does. The ways take turns within every round, and a ratio is the median
over the rounds, so that whatever else the machine does weighs on all of them alike.
"""

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import checkpoints
from deployments.models.encoder import Encoder, Vectors
from deployments.models.precision import photos
from deployments.settings import Model
from deployments.threads import thread_count

# Long enough for the clock, short enough for the ways to share the machine's moods.
_TURN_S = 0.4


class Way(NamedTuple):
    """One way to run the model."""

    precision: Literal["float32", "bfloat16", "int8"]
    compile: Literal["on", "off"]

    def __str__(self) -> str:
        return f"{self.precision} {'compiled' if self.compile == 'on' else 'eager'}"


REFERENCE = Way("float32", "off")
WAYS = (
    REFERENCE,
    Way("bfloat16", "off"),
    Way("int8", "off"),
    Way("float32", "on"),
    Way("bfloat16", "on"),
    Way("int8", "on"),
)


class Loaded(NamedTuple):
    encoder: Encoder
    load_s: float
    cosine: float
    """The lowest with float32's vectors, over raylens's photos."""


def main(
    model: Annotated[
        str, typer.Option(help="A geometry of checkpoints.py, or what model.id takes.")
    ] = "clip-vit-base-patch32",
    batch: Annotated[list[int] | None, typer.Option(help="Images per forward pass.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 9,
    threads: Annotated[int, typer.Option(help="Torch threads; 0: one per processor.")] = 0,
) -> None:
    """Measures a model and prints a table."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    threads = threads or thread_count("auto")
    with tempfile.TemporaryDirectory() as folder:
        if model in checkpoints.GEOMETRIES:
            checkpoints.write(model, Path(folder))
        loaded: dict[Way, Loaded] = {}
        reference = None
        for way in WAYS:
            with console.status(f"Loading {way}"):
                id_ = folder if model in checkpoints.GEOMETRIES else model
                loaded[way] = load(id_, way, threads, reference)
            if reference is None:
                encoder = loaded[way].encoder
                reference = encoder.embed(photos(encoder.preprocessing.pixels))
    rates: dict[int, dict[Way, list[float]]] = {}
    for size in batch or [1, 8, 32]:
        with console.status(f"Measuring batches of {size}"):
            rates[size] = measure({way: it.encoder for way, it in loaded.items()}, size, rounds)
    console.print(table(loaded, rates, title=f"{model}, {threads} threads, {processor()}"))
    console.print(
        f"images/s, median of {rounds} rounds, and how many times those of float32 eager in the "
        "same round. Cosine: the lowest with float32's vectors, over 8 photos. Load: with "
        f"compiling. torch {torch.__version__}."
    )
    console.print(products(threads))


def load(id_: str, way: Way, threads: int, reference: Vectors | None) -> Loaded:
    """The model as a replica loads it, and tried on the photos."""
    began = time.monotonic()
    settings = Model(id=id_, precision=way.precision, compile=way.compile, threads=threads)
    encoder = Encoder.load(settings.model_copy(update={"device": "cpu"}))
    vectors = encoder.embed(photos(encoder.preprocessing.pixels))
    load_s = time.monotonic() - began
    other = vectors if reference is None else reference
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(other, axis=1)
    return Loaded(encoder, load_s, float(((vectors * other).sum(axis=1) / lengths).min()))


def measure(encoders: dict[Way, Encoder], size: int, rounds: int) -> dict[Way, list[float]]:
    """Images/s of each way in each round. The first pass of a size is not counted."""
    spec = next(iter(encoders.values())).preprocessing.pixels
    pixels = np.resize(photos(spec), (size, *spec.size, 3))
    passes = {way: passes_in_a_turn(partial(e.embed, pixels)) for way, e in encoders.items()}
    rates: dict[Way, list[float]] = {way: [] for way in encoders}
    for _ in range(rounds):
        for way, encoder in encoders.items():
            began = time.perf_counter()
            for _ in range(passes[way]):
                encoder.embed(pixels)
            rates[way].append(size * passes[way] / (time.perf_counter() - began))
    return rates


def passes_in_a_turn(run: Callable[[], object]) -> int:
    run()
    began = time.perf_counter()
    run()
    return max(1, round(_TURN_S / (time.perf_counter() - began)))


def table(
    loaded: dict[Way, Loaded], rates: dict[int, dict[Way, list[float]]], *, title: str
) -> Table:
    grid = Table(title=title, box=box.SIMPLE_HEAD)
    grid.add_column("way", no_wrap=True)
    for size in rates:
        grid.add_column(f"batch {size}", justify="right")
        grid.add_column("×", justify="right", style="bold")  # noqa: RUF001
    grid.add_column("cosine", justify="right")
    grid.add_column("load", justify="right")
    for way, it in loaded.items():
        cells = []
        for of_size in rates.values():
            ratios = [a / b for a, b in zip(of_size[way], of_size[REFERENCE], strict=True)]
            cells += [f"{statistics.median(of_size[way]):.1f}", f"{statistics.median(ratios):.2f}"]
        fell = it.encoder.precision != way.precision
        name = f"{way}, fell back to {it.encoder.precision}" if fell else str(way)
        grid.add_row(name, *cells, f"{it.cosine:.5f}", f"{it.load_s:.0f} s")
    return grid


def products(threads: int) -> str:
    """How fast this machine multiplies matrices: no model gains more by a precision than that."""
    torch.set_num_threads(threads)
    rows, inner, columns = 1600, 768, 3072  # an MLP layer of CLIP ViT-B/32 on 32 images
    a, b = torch.randn(rows, inner), torch.randn(columns, inner)
    small = (torch.ones(rows, inner, dtype=torch.int8), torch.ones(inner, columns).to(torch.int8))
    linear = torch.nn.functional.linear
    ways: dict[str, Callable[[], object]] = {
        "float32": partial(linear, a, b),
        "bfloat16": partial(linear, a.bfloat16(), b.bfloat16()),
        "int8": partial(torch._int_mm, *small),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(30):
            for name, run in ways.items():
                began = time.perf_counter()
                run()
                found[name].append(2e-9 * rows * inner * columns / (time.perf_counter() - began))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    rates = ", ".join(
        f"{name} {rate:,.0f} ({rate / medians['float32']:.1f}×)"  # noqa: RUF001
        for name, rate in medians.items()
    )
    return f"Matrix products alone, which no model outruns, in GFLOP/s: {rates}."


def processor() -> str:
    """Its name, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    typer.run(main)
