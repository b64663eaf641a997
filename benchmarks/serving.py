"""raylens, infinity and the bare model side by side: `make bench`.

Same weights, same images, same machine, the load generator on the same processors. Everything
takes turns within each round, and a ratio is the median of the rounds' ratios, so that whatever
else the machine does weighs on all of them alike.
"""

import base64
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import checkpoints, servers
from benchmarks.bare import BareModel, Rate
from benchmarks.encoder import processor
from benchmarks.load import Run, run_closed_loop
from benchmarks.photos import jpeg, variant

JSON = {"Content-Type": "application/json"}
GEOMETRY = "clip-vit-base-patch32"


@dataclass(frozen=True)
class Scenario:
    """What the callers do. Least ratios are those that raylens promises itself."""

    name: str
    callers: int
    images: int
    size: tuple[int, int] = (640, 480)
    of_bare: float | None = None
    of_infinity: float | None = None


SCENARIOS = (
    Scenario("64 callers, 1 image each", 64, 1, of_bare=0.75, of_infinity=4.0),
    Scenario("16 callers, 1 image each", 16, 1, of_bare=0.70),
    Scenario("2 callers, 32 images each", 2, 32, of_bare=0.85, of_infinity=4.3),
    Scenario("1 caller, 1 image", 1, 1),
    Scenario("16 callers, 12 megapixels", 16, 1, (4000, 3000), of_infinity=2.5),
)


@dataclass
class Measured:
    """One scenario on one server in one round."""

    run: Run
    cpu_s: float

    @property
    def cpu_ms_per_image(self) -> float:
        return 1e3 * self.cpu_s / self.run.images


def bodies(scenario: Scenario, model: str) -> list[bytes]:
    """Request bodies with data URIs; no image twice in one of them."""
    different = 4 if scenario.size[0] > 1000 else 16
    number = max(64, 2 * scenario.images)
    photos = [jpeg(seed, *scenario.size) for seed in range(different)]
    files = [variant(photos[i % different], i) for i in range(number)]
    uris = [f"data:image/jpeg;base64,{base64.b64encode(f).decode()}" for f in files]
    options = {"model": model, "modality": "image", "encoding_format": "base64"}
    return [
        orjson.dumps({**options, "input": uris[start : start + scenario.images]})
        for start in range(0, len(uris) - scenario.images + 1, scenario.images)
    ]


class Bench:
    """Servers and the bare model, and the process that loads them."""

    def __init__(self, folder: Path, seconds: float, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._seconds = seconds
        self._say = say
        self._load = ProcessPoolExecutor(1, get_context("spawn"))

    def run(self, server: servers.Server, scenario: Scenario) -> Measured:
        self._say(f"{scenario.name}: {server.name}")
        cpu = server.cpu_s()
        # Large requests would otherwise be too few to count.
        seconds = self._seconds * (2 if scenario.images > 1 or scenario.size[0] > 1000 else 1)
        run = self._load.submit(
            run_closed_loop,
            server.url,
            bodies(scenario, server.model),
            images=scenario.images,
            callers=scenario.callers,
            seconds=seconds,
            warm_up_s=2.0,
            headers=JSON,
        ).result()
        if not run.images:
            raise RuntimeError(f"{server.name} answered no request with 200 ({run.errors} errors)")
        used = (server.cpu_s() - cpu) * run.seconds / (seconds + 2.0)
        return Measured(run, used)

    def close(self) -> None:
        self._load.shutdown()


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of each turn, after 2 s of warm-up.")] = 6.0,
    only: Annotated[str, typer.Option(help="Only scenarios with this in their name.")] = "",
    precision: Annotated[str, typer.Option(help="Of raylens and the bare model.")] = "auto",
    compile: Annotated[str, typer.Option(help="on or off, of both.")] = "on",
    batch: Annotated[int, typer.Option(help="raylens's model.max_batch_size.")] = 8,
    infinity_venv: Annotated[Path, typer.Option(help="Where infinity_emb is.")] = Path(
        ".venv-infinity"
    ),
    infinity_dtypes: Annotated[str, typer.Option(help="Modes of infinity to try.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="A JSON file for all figures.")] = None,
) -> None:
    """Measures and prints one table."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    scenarios = [s for s in SCENARIOS if only in s.name]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = checkpoints.write(GEOMETRY, scratch / GEOMETRY)
        status = stack.enter_context(console.status("Loading the bare model"))
        bench = Bench(folder, seconds, status.update)
        stack.callback(bench.close)
        bare = BareModel(folder, precision, "on" if compile == "on" else "off")
        stack.callback(bare.close)
        status.update("Starting the servers")
        settings = {
            "MODEL__PRECISION": precision,
            "MODEL__COMPILE": compile,
            "MODEL__MAX_BATCH_SIZE": str(batch),
            "CACHE__MAX_BYTES": "0",
        }
        ours = stack.enter_context(servers.raylens(folder, scratch / "raylens.log", **settings))
        peers = []
        if infinity_venv.exists():
            for dtype in infinity_dtypes.split(","):
                log = scratch / f"infinity-{dtype}.log"
                peer = servers.infinity(infinity_venv, folder, log, dtype, 32)
                peers.append(stack.enter_context(peer))
        found = measure(bench, bare, [ours, *peers], scenarios, rounds, status.update)
        memory = {server.name: server.memory_mb() for server in (ours, *peers)}
        hits = cache_hits(bench, folder, scratch, settings, rounds)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "bare": bare.runs_in,
        "ready_s": ours.ready_s,
        "memory_mb": memory,
        "cache_hits_per_s": hits,
        "scenarios": {name: summary(rows) for name, rows in found.items()},
    }
    console.print(table(scenarios, found, f"{GEOMETRY}, {processor()}, bare model {bare.runs_in}"))
    console.print(
        f"Medians of {rounds} rounds, ratios of the ratios within a round; in brackets what "
        "raylens is meant to reach at least. "
        f"Cache hits: {statistics.median(hits):,.0f} requests/s at 16 callers. raylens was ready "
        f"in {ours.ready_s:.0f} s. Memory: "
        + ", ".join(f"{name} {mb:,.0f} MB" for name, mb in memory.items())
        + "."
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")


Rows = list[tuple[dict[str, Measured], dict[int, Rate]]]


def measure(
    bench: Bench,
    bare: BareModel,
    targets: Sequence[servers.Server],
    scenarios: Sequence[Scenario],
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Rows]:
    """For each scenario, what every round saw of the servers and of the bare model."""
    found: dict[str, Rows] = {}
    for scenario in scenarios:
        rows: Rows = []
        for number in range(rounds):
            order = targets if number % 2 == 0 else targets[::-1]
            measured = {server.name: bench.run(server, scenario) for server in order}
            say(f"{scenario.name}: bare model")
            rows.append((measured, bare.measure([1, 8, 32], 4.0)))
        found[scenario.name] = rows
    return found


def cache_hits(
    bench: Bench, folder: Path, scratch: Path, settings: dict[str, str], rounds: int
) -> list[float]:
    """Requests/s of a raylens that has seen all the images before."""
    scenario = Scenario("16 callers, 1 image each, cached", 16, 1)
    with servers.raylens(
        folder, scratch / "cached.log", **{**settings, "CACHE__MAX_BYTES": "100000000"}
    ) as server:
        bench.run(server, scenario)
        return [bench.run(server, scenario).run.rate for _ in range(rounds)]


def best(rates: dict[int, Rate]) -> float:
    return max(rate.images_per_s for rate in rates.values())


def ratio(rows: Rows, name: str, other: str | None) -> float:
    """How many times the images/s of another, or of the bare model's best."""
    return statistics.median(
        measured[name].run.rate / (measured[other].run.rate if other else best(rates))
        for measured, rates in rows
    )


def summary(rows: Rows) -> dict[str, Any]:
    """The figures of one scenario, for the JSON file."""
    servers_ = {
        name: {
            "images_per_s": [m[name].run.rate for m, _ in rows],
            "p50_ms": [m[name].run.percentile(50) for m, _ in rows],
            "p95_ms": [m[name].run.percentile(95) for m, _ in rows],
            "p99_ms": [m[name].run.percentile(99) for m, _ in rows],
            "cpu_ms_per_image": [m[name].cpu_ms_per_image for m, _ in rows],
            "load_cpu_s": [m[name].run.cpu_s for m, _ in rows],
            "errors": [m[name].run.errors for m, _ in rows],
        }
        for name in rows[0][0]
    }
    bare = {str(size): [rates[size] for _, rates in rows] for size in rows[0][1]}
    return {"servers": servers_, "bare": bare}


def table(scenarios: Sequence[Scenario], found: dict[str, Rows], title: str) -> Table:
    grid = Table(title=title, box=box.SIMPLE_HEAD)
    grid.add_column("load")
    grid.add_column("server", no_wrap=True)
    for heading in ("images/s", "of bare", "× infinity", "p50 ms", "p99 ms", "CPU ms", "errors"):  # noqa: RUF001
        grid.add_column(heading, justify="right")
    for scenario in scenarios:
        rows = found[scenario.name]
        peers = [name for name in rows[0][0] if name != "raylens"]
        strongest = max(
            peers, key=lambda n: statistics.median(m[n].run.rate for m, _ in rows), default=None
        )
        for name in rows[0][0]:
            runs = [m[name] for m, _ in rows]
            of_bare = f"{ratio(rows, name, None):.2f}"
            against = ""
            if name == "raylens":
                if scenario.of_bare:
                    of_bare += f" ({scenario.of_bare})"
                if strongest:
                    against = f"{ratio(rows, name, strongest):.2f}"
                    against += f" ({scenario.of_infinity})" if scenario.of_infinity else ""
            grid.add_row(
                scenario.name if name == "raylens" else "",
                name,
                f"{statistics.median(r.run.rate for r in runs):.1f}",
                of_bare,
                against,
                f"{statistics.median(r.run.percentile(50) for r in runs):.0f}",
                f"{statistics.median(r.run.percentile(99) for r in runs):.0f}",
                f"{statistics.median(r.cpu_ms_per_image for r in runs):.1f}",
                str(sum(r.run.errors for r in runs)),
            )
        bests = [best(rates) for _, rates in rows]
        alone = statistics.median(rates[1].batch_ms for _, rates in rows)
        grid.add_row("", "bare model", f"{statistics.median(bests):.1f}", "", "", f"{alone:.0f}")
    return grid


if __name__ == "__main__":
    typer.run(main)
