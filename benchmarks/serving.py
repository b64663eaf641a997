"""raylens, infinity and the bare model side by side: `make bench`.

Same weights, same images, same machine, the load generator on the same processors. Everything
takes turns within each round, and a ratio is the median of the rounds' ratios, so that whatever
else the machine does weighs on all of them alike.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from benchmarks import checkpoints, offered_load, report, servers
from benchmarks.bare import STREAMS, BareModel, best
from benchmarks.bench import Bench, file_name
from benchmarks.machine import machine
from benchmarks.report import Round, Rounds
from benchmarks.scenarios import LONE, SCENARIOS, Scenario

CACHE_HITS = "cache hits"
BARE_BATCHES, BARE_S = (1, 8, 32, STREAMS), 4.0


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of each turn, after 2 s of warm-up.")] = 6.0,
    only: Annotated[
        str, typer.Option(help=f"Only what has this in its name, as '{CACHE_HITS}' has.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="A geometry of checkpoints.py, or what model.id takes.")
    ] = "clip-vit-base-patch32",
    precision: Annotated[str, typer.Option(help="Of raylens and the bare model.")] = "auto",
    batch: Annotated[int, typer.Option(help="raylens's model.max_batch_size.")] = 8,
    infinity_venv: Annotated[Path, typer.Option(help="Where infinity_emb is.")] = Path(
        ".venv-infinity"
    ),
    infinity_dtypes: Annotated[
        str, typer.Option(help="infinity's modes, each a server; the best one counts.")
    ] = "float32,int8",
    out: Annotated[Path | None, typer.Option(help="A folder for all figures and a plot.")] = None,
) -> None:
    """Measures all and prints tables."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    scenarios = [s for s in SCENARIOS if only in s.name]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = Path(model)
        if model in checkpoints.GEOMETRIES:
            folder = checkpoints.write(model, scratch / model)
        status = stack.enter_context(console.status("Loading the bare model"))
        bench = stack.enter_context(Bench(seconds, status.update))
        bare = BareModel(folder, precision, scratch)
        stack.callback(bare.close)
        settings = {
            "MODEL__PRECISION": precision,
            "MODEL__MAX_BATCH_SIZE": str(batch),
        }
        with contextlib.ExitStack() as running:
            status.update("Starting the servers")
            uncached = {**settings, "CACHE__MAX_BYTES": "0"}
            ours = running.enter_context(servers.raylens(folder, scratch / "raylens.log", uncached))
            targets = [ours]
            peers = infinity_dtypes.split(",") if infinity_venv.exists() and folder.is_dir() else []
            for dtype in peers:
                log = scratch / f"infinity-{dtype}.log"
                peer = servers.infinity(infinity_venv, folder, log, dtype, 32)
                targets.append(running.enter_context(peer))
            found = measure(bench, bare, targets, scenarios, rounds)
            points, bare_best = [], 0.0
            if only in offered_load.OFFERED_LOAD:
                bare_best = best(bare.measure(BARE_BATCHES, BARE_S))
                points = offered_load.measure(bench, targets, bare_best)
        hits = []
        if only in CACHE_HITS:
            with servers.raylens(folder, scratch / "cached.log", settings) as cached:
                hits = cache_hits(bench, cached, rounds)
    now = datetime.now(UTC)
    title = f"{model}, bare in {bare.runs_in}; {machine()}; {now:%Y-%m-%d}"
    if scenarios:
        console.print(report.scenario_table(scenarios, found, title))
    if LONE in scenarios:
        console.print(report.lone_table(found[LONE.name]))
    if points:
        console.print(offered_load.table(points))
    console.print(footer(found, rounds, hits, ours.ready_s))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        name = file_name(now, model, bare.runs_in, only.strip())
        figures: dict[str, Any] = {
            "date": now.isoformat(timespec="seconds"),
            "machine": machine(),
            "model": model,
            "bare": bare.runs_in,
            "contenders": bare.contenders,
            "ready_s": ours.ready_s,
            "cache_hits_per_s": hits,
            "scenarios": {s: report.rounds_figures(rows) for s, rows in found.items()},
            "offered_load": offered_load.as_json(points),
        }
        (out / f"{name}.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        if points:
            offered_load.plot(points, bare_best, title, out / f"{name}.png")


def measure(
    bench: Bench,
    bare: BareModel,
    targets: Sequence[servers.Server],
    scenarios: Sequence[Scenario],
    rounds: int,
) -> dict[str, Rounds]:
    """For each scenario, what every round saw of the servers and of the bare model."""
    found: dict[str, Rounds] = {}
    for scenario in scenarios:
        rows = []
        for number in range(rounds):
            order = targets if number % 2 == 0 else targets[::-1]
            turns = {server.name: bench.close_loop(server, scenario) for server in order}
            turns = {server.name: turns[server.name] for server in targets}
            bench.say(f"{scenario.name}: bare model")
            rows.append(Round(turns, bare.measure(BARE_BATCHES, BARE_S)))
        found[scenario.name] = rows
    return found


def cache_hits(bench: Bench, server: servers.Server, rounds: int) -> list[float]:
    """Requests/s of a raylens that has seen all the images before."""
    scenario = Scenario(CACHE_HITS, callers=16, images=1)
    bench.close_loop(server, scenario)
    return [bench.close_loop(server, scenario).run.rate for _ in range(rounds)]


def footer(found: dict[str, Rounds], rounds: int, hits: Sequence[float], ready_s: float) -> str:
    lines = [
        f"Medians of {rounds} rounds, ratios of the ratios within a round; × infinity: of the best "  # noqa: RUF001
        "of its modes. CPU: of the server, for an image. In brackets what raylens promises.",
        f"Ready after {ready_s:.0f} s (at most {report.MOST_READY_S}).",
    ]
    if hits:
        lines.append(
            f"Cache hits: {statistics.median(hits):,.0f} requests/s of 16 callers "
            f"(at least {report.LEAST_HITS_PER_S:,})."
        )
    memory = [f"{name} {mb:,.0f} MB" for name, mb in report.memory(found).items()]
    if memory:
        lines.append(f"Most memory under load: {', '.join(memory)}.")
    errors = report.errors(found)
    lines.append(f"Errors: {'; '.join(errors) or 'none'}.")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
