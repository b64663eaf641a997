"""`raylens bulk` beside what one would write by hand: images/s, memory, and the same vectors.

`python -m benchmarks.bulk PHOTOS` makes that many JPEGs of 640 x 480 and embeds them in turn by

- raylens: `raylens.bulk.run`;
- map_batches: transformers' AutoModel and AutoImageProcessor in an actor, as in Ray Data's guide;
- sentence-transformers: `SentenceTransformer.encode` of the same files.

Each runs in a process of its own, on the checkpoint of the bundled model.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.bulk_by_hand import map_batches, sentence_transformers
from benchmarks.machine import machine
from benchmarks.photos import jpeg


def main(
    photos: Annotated[int, typer.Argument(help="How many JPEGs.")] = 1000,
    cpus: Annotated[int, typer.Option(help="Logical processors of each Ray.")] = 3,
    model: Annotated[Path | None, typer.Option(help="Another checkpoint's folder.")] = None,
) -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for number in range(photos):
            (folder / f"{number:06d}.jpg").write_bytes(jpeg(number))
        checkpoint = model or in_another_process(bundled_checkpoint)
        vectors: dict[str, Any] = {}
        for name, way in WAYS.items():
            out = Path(scratch) / name.replace(" ", "-")
            told = in_another_process(_timed, way, folder, out, checkpoint, cpus)
            vectors[name] = _read(out)
            print(
                f"{name:<26} {photos / told['seconds']:7.1f} images/s at work, "
                f"{photos / told['all_s']:6.1f} with the start, {told['mib']:,.0f} MiB",
                flush=True,
            )
            if told["report"]:
                print(told["report"], flush=True)
        reference = vectors["sentence-transformers"]
        for name, made in vectors.items():
            cosines = [float(np.dot(made[key], reference[key])) for key in reference]
            print(f"{name:<26} {len(made)} vectors, least cosine {min(cosines):.5f}")


def raylens_bulk(folder: Path, out: Path, checkpoint: Path, cpus: int) -> tuple[float, str]:
    from raylens import bulk
    from raylens.cli.bulk import report

    config = {"model": {"id": str(checkpoint), "max_batch_size": 4}}
    summary = bulk.run(str(folder), str(out), config=config, cpus=cpus)
    return summary.seconds, report(summary)


Way = Callable[[Path, Path, Path, int], tuple[float, str]]
WAYS: dict[str, Way] = {
    "raylens bulk": raylens_bulk,
    "map_batches by hand": map_batches,
    "sentence-transformers": sentence_transformers,
}


def bundled_checkpoint() -> Path:
    from deployments.checkpoints import bundled

    return bundled.snapshot()


def _timed(way: Way, *arguments: Any) -> dict[str, Any]:
    began = time.monotonic()
    with _most_memory() as most:
        seconds, report = way(*arguments)
    all_s = time.monotonic() - began
    return {"seconds": seconds, "all_s": all_s, "mib": most() / 2**20, "report": report}


@contextmanager
def _most_memory() -> Iterator[Callable[[], int]]:
    """The most memory that this process and all it starts have at once, shared pages counted
    once (PSS)."""
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(1.0):
            total = 0
            own = psutil.Process()
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            peak = max(peak, total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak
    finally:
        done.set()
        thread.join()


def in_another_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _read(out: Path) -> dict[str, Any]:
    from pyarrow import parquet

    table = parquet.read_table(out)
    name = "path" if "path" in table.column_names else "source"
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    return dict(zip((Path(p).name for p in table[name].to_pylist()), vectors, strict=True))


if __name__ == "__main__":
    typer.run(main)
