"""What `raylens dedupe` finds with its index of neighbours: `python -m benchmarks.duplicates`.

Vectors in clusters, as those of photos are, some of them planted again with a little noise. Needs
disk space for the vectors.
"""

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from raylens.embeddings.duplicates import groups
from raylens.embeddings.reading import read
from tests.embeddings.stored import store

# Rows of one cluster have cosines of about 0.8, as photos of one kind; planted ones 0.975 to 1.
_WITHIN = 0.8
_LEAST_PLANTED = 0.975

console = Console(width=100)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def near(
    vectors: NDArray[np.float32], cosines: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """A unit vector at that cosine to each of the vectors, in a random direction."""
    aside = rng.standard_normal(vectors.shape, dtype=np.float32)
    aside -= np.einsum("nd,nd->n", aside, vectors)[:, None] * vectors
    along, across = cosines[:, None], np.sqrt(1 - cosines[:, None] ** 2)
    return unit((along * vectors + across * unit(aside)).astype(np.float32))


def planted(
    rows: int, dimensions: int, pairs: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(rows, D) vectors, shuffled, and (pairs, 2) the rows that are near-duplicates."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((1 + rows // 100, dimensions), dtype=np.float32))
    chosen = centres[rng.integers(0, len(centres), rows - pairs)]
    spread = np.full(len(chosen), np.sqrt(_WITHIN), np.float32)
    first = near(chosen, spread, rng)
    cosines = rng.uniform(_LEAST_PLANTED, 1, pairs).astype(np.float32)
    vectors = np.concatenate([first, near(first[:pairs], cosines, rng)])
    order = rng.permutation(rows)
    places = np.empty(rows, np.int64)
    places[order] = np.arange(rows)
    ends = np.stack([places[:pairs], places[rows - pairs :]], axis=1)
    return vectors[order], ends


def measured(
    path: Path, threshold: float, exact_rows: int
) -> tuple[list[float], float, list[list[int]]]:
    """Seconds by the clock and of the processors, the peak memory in MB, and the rows of groups."""
    began = time.perf_counter(), time.process_time()
    found = groups(read(path), threshold, exact_rows=exact_rows)
    seconds = [time.perf_counter() - began[0], time.process_time() - began[1]]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds, peak, [[member.row for member in group] for group in found]


def main(
    rows: Annotated[int, typer.Option(min=2)] = 120_000,
    dimensions: Annotated[int, typer.Option(min=2)] = 512,
    pairs: Annotated[int, typer.Option(min=1)] = 20_000,
    threshold: float = 0.97,
    exact: Annotated[bool, typer.Option(help="Compare every pair, too.")] = False,
) -> None:
    """Prints how many of the planted pairs are found, the seconds and the memory."""
    vectors, ends = planted(rows, dimensions, pairs)
    with tempfile.TemporaryDirectory() as folder:
        path = store(Path(folder) / "photos.npy", vectors)
        table = Table(title=f"{rows:,} x {dimensions}, {pairs:,} planted pairs, {machine()}")
        table.add_column("by")
        for column in ("pairs found", "groups", "rows in them", "s", "processors' s", "peak MB"):
            table.add_column(column, justify="right")
        for name, exact_rows in (("index", 0), ("every pair", rows))[: 2 if exact else 1]:
            # A process of its own, so that the memory is of this alone.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak, found = pool.apply(measured, (path, threshold, exact_rows))
            group = np.full(rows, -1)
            for number, members in enumerate(found):
                group[members] = number
            left, right = group[ends].T
            recall = np.mean((left == right) & (left >= 0))
            inside = sum(map(len, found))
            cells = (f"{cell:,.0f}" for cell in (len(found), inside, *seconds, peak))
            table.add_row(name, f"{recall:.4%}", *cells)
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
