"""How long a search over a million vectors takes: `python -m benchmarks.search`.

Random vectors in files of each kind that people search; every answer is compared with that of a
plain product and sort. Needs disk space for twice the vectors, or once with `--no-parquet`.
"""

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from numpy.typing import NDArray
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from raylens.embeddings.reading import read
from raylens.embeddings.search import nearest

PART_ROWS = 10_000
TOP = 10

console = Console(width=100)


def parts(rows: int, dimensions: int) -> Iterator[NDArray[np.float32]]:
    """Unit vectors, always the same ones."""
    rng = np.random.default_rng(0)
    for first in range(0, rows, PART_ROWS):
        part = rng.standard_normal((min(PART_ROWS, rows - first), dimensions), dtype=np.float32)
        yield part / np.linalg.norm(part, axis=1, keepdims=True)


def write(folder: Path, rows: int, dimensions: int, with_parquet: bool) -> tuple[Path, Path]:
    """The same embeddings as Parquet, which may be left empty, and as .npy."""
    schema = pa.schema(
        {
            "source": pa.string(),
            "embedding": pa.list_(pa.float32(), dimensions),
            "model": pa.string(),
        }
    )
    table_path, array_path = folder / "photos.parquet", folder / "photos.npy"
    array = np.lib.format.open_memmap(
        array_path, mode="w+", dtype=np.float32, shape=(rows, dimensions)
    )
    first = 0
    with (
        parquet.ParquetWriter(table_path, schema, use_dictionary=["model"]) as writer,
        array_path.with_suffix(".jsonl").open("w") as lines,
    ):
        for part in parts(rows, dimensions):
            names = [f"/photos/{number}.jpg" for number in range(first, first + len(part))]
            if with_parquet:
                flat = pa.array(part.reshape(-1))
                vectors = pa.FixedSizeListArray.from_arrays(flat, dimensions)
                columns = [names, vectors, ["random"] * len(part)]
                writer.write_table(pa.table(columns, schema=schema))
            lines.writelines(json.dumps({"source": n, "model": "random"}) + "\n" for n in names)
            array[first : first + len(part)] = part
            first += len(part)
    array.flush()
    return table_path, array_path


def memory_mb() -> tuple[float, float]:
    """What this process holds that is its own, and what it has mapped of files."""
    status = Path("/proc/self/status").read_text()
    kb = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    return int(kb["RssAnon"]) / 1024, int(kb["RssFile"]) / 1024


def measured(path: Path, queries: NDArray[np.float32], mapped: bool) -> dict[str, list[float]]:
    """The milliseconds of the first query and of the others, the memory, and the rows found."""
    embeddings = read(path)
    if mapped:
        embeddings.vectors  # noqa: B018  # from here on they are mapped
    times: list[float] = []
    found: list[float] = []
    for query in queries:
        began = time.perf_counter()
        hits = nearest(embeddings, query, TOP)
        times.append((time.perf_counter() - began) * 1e3)
        found += [hit.row for hit in hits]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"times": times, "memory": [*memory_mb(), peak], "rows": found}


def check(array: Path, queries: NDArray[np.float32], found: list[float]) -> None:
    vectors = np.lib.format.open_memmap(array, mode="r")
    starts = range(0, len(vectors), PART_ROWS)
    scores = np.concatenate([vectors[s : s + PART_ROWS] @ queries.T for s in starts])
    for number in range(len(queries)):
        best = np.argsort(-scores[:, number], kind="stable")[:TOP].tolist()
        if set(best) != set(found[number * TOP : (number + 1) * TOP]):
            raise AssertionError(f"query {number} has {best}, but {found} were found")


def main(
    rows: Annotated[int, typer.Option(min=1)] = 1_000_000,
    dimensions: Annotated[int, typer.Option(min=1)] = 512,
    queries: Annotated[int, typer.Option(min=2, help="Of files that are mapped.")] = 50,
    with_parquet: Annotated[bool, typer.Option("--parquet/--no-parquet")] = True,
) -> None:
    """Prints the milliseconds of a query and the memory of the process that makes it."""
    asked = next(parts(queries, dimensions)) + np.float32(0.01)
    with tempfile.TemporaryDirectory() as folder:
        table_path, array_path = write(Path(folder), rows, dimensions, with_parquet)
        table = Table(title=f"{rows:,} x {dimensions} float32, top {TOP}, {machine()}")
        for column in ("file", "first ms", "p50 ms", "p95 ms", "own MB", "mapped MB", "peak MB"):
            table.add_column(column, justify="left" if column == "file" else "right")
        kinds = (
            (".npy, mapped", array_path, True, queries),
            (".parquet, streamed", table_path, False, 4),
            (".parquet, mapped", table_path, True, queries),
        )
        for name, path, mapped, number in kinds if with_parquet else kinds[:1]:
            # A process of its own, so that the memory is of this alone.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                got = pool.apply(measured, (path, asked[:number], mapped))
            check(array_path, asked[:number], got["rows"])
            first, *times = got["times"]
            cells = (first, *np.percentile(times, (50, 95)), *got["memory"])
            table.add_row(name, *(f"{cell:,.0f}" for cell in cells))
        console.print(table)
        console.print("Every answer has the rows of a plain product and sort.")


if __name__ == "__main__":
    typer.run(main)
