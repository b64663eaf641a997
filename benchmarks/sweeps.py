"""How cost grows: `make bench-sweeps`. raylens alone, over the size of images, the images in a
request, the size of batches, and the number of model replicas.

It runs with its defaults and the RAYLENS_ variables of the environment, but without its cache.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import checkpoints
from benchmarks.bench import Bench, Measured, file_name
from benchmarks.machine import machine
from benchmarks.report import figures
from benchmarks.scenarios import Scenario
from benchmarks.servers import raylens
from raylens.serving import default_config

GEOMETRY = "clip-vit-base-patch32"
MEGAPIXELS = (0.3, 1, 3, 6, 12, 24)
ITEMS = (1, 8, 32, 128, 500)
BATCHES = (1, 2, 4, 8, 16, 32)
REPLICAS = (1, 2, 4)
CROWD = Scenario("64 x 1 image", 64, 1)

Sweep = dict[float, Measured]


class Sweeps:
    """Serves the model as each sweep wants it, and measures."""

    def __init__(self, bench: Bench, scratch: Path) -> None:
        self._bench = bench
        self._scratch = scratch
        self._model = checkpoints.write(GEOMETRY, scratch / GEOMETRY)

    def image_size(self) -> Sweep:
        scenarios = {mp: Scenario(f"16 x {mp} MP", 16, 1, four_by_three(mp)) for mp in MEGAPIXELS}
        return self._measure(scenarios)

    def items(self) -> Sweep:
        return self._measure({n: Scenario(f"1 x {n} images", 1, n) for n in ITEMS})

    def batch_size(self) -> Sweep:
        found: Sweep = {}
        for size in BATCHES:
            found |= self._measure({size: CROWD}, {"MODEL__MAX_BATCH_SIZE": str(size)})
        return found

    def replicas(self) -> Sweep:
        found: Sweep = {}
        processors = os.cpu_count() or 1
        for number in REPLICAS:
            threads = {"MODEL__THREADS": str(max(1, processors // number))}
            found |= self._measure({number: CROWD}, threads, self._config(number, processors))
        return found

    def _config(self, replicas: int, processors: int) -> Path:
        """The default Serve config with so many model replicas, which share the machine."""
        config = yaml.safe_load(default_config().read_bytes())
        for deployment in config["applications"][0]["deployments"]:
            if deployment["name"] == "Embedder":
                deployment["num_replicas"] = replicas
                deployment["ray_actor_options"] = {"num_cpus": min(1, processors / replicas)}
        path = self._scratch / f"replicas-{replicas}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def _measure(
        self,
        scenarios: Mapping[float, Scenario],
        settings: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> Sweep:
        """Each scenario on one raylens with these settings."""
        self._bench.say("Starting raylens")
        settings = {"CACHE__MAX_BYTES": "0", **(settings or {})}
        log = self._scratch / "raylens.log"
        with raylens(self._model, log, settings, config=config) as server:
            return {at: self._bench.close_loop(server, s) for at, s in scenarios.items()}


# What is swept, under which load, and the method of Sweeps.
SWEEPS = {
    "image size": ("megapixels", "16 callers, a 4:3 JPEG each", Sweeps.image_size),
    "items": ("images in a request", "1 caller, 640x480", Sweeps.items),
    "batch size": ("model.max_batch_size", "64 callers, 640x480", Sweeps.batch_size),
    "replicas": ("model replicas", "64 callers, 640x480, one machine", Sweeps.replicas),
}


def main(
    seconds: Annotated[float, typer.Option(help="Of each point, twice that of large ones.")] = 5.0,
    only: Annotated[
        str, typer.Option(help=f"Only sweeps with this in their name: {', '.join(SWEEPS)}.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="A folder for all figures.")] = None,
) -> None:
    """Prints a table for each sweep."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    now = datetime.now(UTC)
    console.print(f"{GEOMETRY}, {machine()}, {now:%Y-%m-%d}. CPU: of the server, for an image.")
    report: dict[str, Any] = {
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "model": GEOMETRY,
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        console.status("Starting") as status,
        Bench(seconds, status.update) as bench,
    ):
        sweeps = Sweeps(bench, Path(scratch))
        for name, (heading, load, sweep) in SWEEPS.items():
            if only in name:
                found = sweep(sweeps)
                console.print(table(heading, load, found))
                report[name] = [as_json(at, measured) for at, measured in found.items()]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{file_name(now, 'sweeps', only)}.json"
        path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def four_by_three(megapixels: float) -> tuple[int, int]:
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    return width, width * 3 // 4


def table(heading: str, load: str, found: Sweep) -> Table:
    grid = Table(title=load, box=box.SIMPLE_HEAD)
    for column in (heading, "images/s", "p50 ms", "CPU ms", "memory MB", "errors"):
        grid.add_column(column, justify="right")
    for at, measured in found.items():
        run = measured.run
        grid.add_row(
            f"{at:g}",
            f"{run.rate:.1f}",
            f"{run.percentile(50):.0f}",
            f"{measured.cpu_ms_per_image:.1f}",
            f"{measured.memory_mb:,.0f}",
            str(run.errors.total()),
        )
    return grid


def as_json(at: float, measured: Measured) -> dict[str, Any]:
    return {"at": at} | {name: values[0] for name, values in figures([measured]).items()}


if __name__ == "__main__":
    typer.run(main)
