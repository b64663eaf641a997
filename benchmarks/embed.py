"""`raylens embed` on a folder of photos, beside the bare model, and killed again and again.

`python -m benchmarks.embed` makes the photos, starts a service that caches nothing, and embeds them
in turns with the bare model. Then some of them once more, by a command that is killed with -9 time
after time.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import typer
from rich.console import Console

from benchmarks import servers
from benchmarks.bare import BareModel, best
from benchmarks.bulk import bundled_checkpoint, in_another_process
from benchmarks.machine import machine
from benchmarks.photos import jpeg
from benchmarks.serving import BARE_BATCHES, BARE_S
from raylens import Client
from raylens.embeddings.reading import read

LOOK_EVERY_S = 0.02
ALONE = 50

console = Console(width=120)


class Run(NamedTuple):
    """One run of the command, whether it came to its end or was killed."""

    seconds: float
    mib: float
    """The most memory that it had (RSS)."""
    status: int


def main(
    photos: Annotated[int, typer.Argument(help="How many JPEGs of 640 x 480.")] = 5000,
    rounds: Annotated[int, typer.Option(help="Turns of the bare model and the command.")] = 2,
    kills: Annotated[int, typer.Option(help="How often the second command is killed.")] = 10,
    kill_photos: Annotated[int, typer.Option(help="Of how many photos.")] = 2000,
) -> None:
    console.print(machine())
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        folder, model = scratch / "photos", in_another_process(bundled_checkpoint)
        for number in range(photos):
            path = folder / f"{number // 1000}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number))
        bare = BareModel(model, "auto", scratch)
        start_mib = run("embed", "--help").mib
        uncached = {"CACHE__MAX_BYTES": "0"}
        with servers.raylens(model, scratch / "raylens.log", uncached) as service:
            url = service.url.removesuffix("/v1/embeddings")
            for number in range(rounds):
                ceiling = best(bare.measure(BARE_BATCHES, BARE_S))
                done = embed(folder, scratch / f"{number}.parquet", url)
                rate = photos / done.seconds
                console.print(
                    f"{photos:,} photos in {done.seconds:.1f} s, exit {done.status}: {rate:.1f} "
                    f"images/s of the bare model's {ceiling:.1f} ({rate / ceiling:.2f}); memory "
                    f"{done.mib:.0f} MiB, {done.mib - start_mib:.0f} over its start"
                )
            some = scratch / "some"
            some.mkdir()
            for path in sorted(folder.rglob("*.jpg"))[:kill_photos]:
                (some / path.name).hardlink_to(path)
            killed(some, scratch / "killed.parquet", url, kills)
            compare(scratch / "0.parquet", scratch / "killed.parquet", some, url, kill_photos)
        bare.close()


def embed(folder: Path, out: Path, url: str, kill_after_s: float = 0.0) -> Run:
    """Runs `raylens embed`; kills it after that time unless it is 0."""
    return run("embed", folder, "-o", out, "--url", url, kill_after_s=kill_after_s)


def run(*arguments: object, kill_after_s: float = 0.0) -> Run:
    program = Path(sys.executable).with_name("raylens")
    command = [str(part) for part in (program, *arguments)]
    began = time.monotonic()
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=null) as process:  # noqa: S603
        watched = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            if kill_after_s and time.monotonic() - began > kill_after_s:
                os.kill(process.pid, signal.SIGKILL)
                break
            with contextlib.suppress(psutil.Error):  # it has ended
                peak = max(peak, watched.memory_info().rss)
            time.sleep(LOOK_EVERY_S)
        status = process.wait()
    return Run(time.monotonic() - began, peak / 2**20, status)


def killed(folder: Path, out: Path, url: str, kills: int) -> None:
    """The command killed at random moments, and then left alone."""
    random = np.random.default_rng(0)
    times = [embed(folder, out, url, random.uniform(1.0, 4.0)).seconds for _ in range(kills)]
    done = embed(folder, out, url)
    console.print(
        f"killed {kills} times, after {', '.join(f'{s:.1f}' for s in times)} s; the rest took "
        f"{done.seconds:.1f} s, exit {done.status}"
    )


def compare(whole: Path, out: Path, folder: Path, url: str, photos: int) -> None:
    """Whether each of the photos is there once, with the vector it got in the undisturbed run."""
    vectors = {}
    for path in (whole, out):
        found = read(path)
        names = [Path(record.source).name for record in found.records(range(len(found)))]
        assert len(set(names)) == len(names)  # noqa: S101
        vectors[path] = dict(zip(names, found.vectors, strict=True))
    assert len(vectors[out]) == photos  # noqa: S101
    cosines = [float(np.dot(vector, vectors[whole][name])) for name, vector in vectors[out].items()]
    console.print(f"{len(cosines):,} files, each once; least cosine {min(cosines):.6f}")
    with Client(url) as client:
        alone = [
            float(np.dot(client.embed_image(folder / name), vectors[out][name]))
            for name in sorted(vectors[out])[:ALONE]
        ]
    console.print(f"{ALONE} of them embedded alone: least cosine {min(alone):.6f}")


if __name__ == "__main__":
    typer.run(main)
