"""What `make bench` tells of its rounds: tables for people, and all figures for a JSON file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from benchmarks.bare import Rate, best
from benchmarks.bench import Measured
from benchmarks.scenarios import LONE, Scenario

# What raylens promises itself besides the ratios in scenarios.py.
MOST_READY_S = 12
LEAST_HITS_PER_S = 2500
MOST_BEYOND_BARE_MS = 6
MOST_P99_OF_P50 = 2


class Round(NamedTuple):
    """Each server's turn at one scenario, and the bare model's beside them."""

    servers: dict[str, Measured]
    bare: dict[int, Rate]
    """By batch size."""

    def rate(self, server: str) -> float:
        """Images/s."""
        return self.servers[server].run.rate

    def percentile_ms(self, server: str, share: float) -> float:
        return self.servers[server].run.percentile(share)


Rounds = Sequence[Round]


def scenario_table(scenarios: Sequence[Scenario], found: Mapping[str, Rounds], title: str) -> Table:
    """How each server did, and how that compares with the bare model and the best infinity."""
    grid = Table(title=title, box=box.SIMPLE_HEAD)
    grid.add_column("load", no_wrap=True)
    grid.add_column("server", no_wrap=True)
    for heading in ("images/s", "of bare", "× infinity", "p50 ms", "p95 ms", "p99 ms", "CPU ms"):  # noqa: RUF001
        grid.add_column(heading, justify="right", no_wrap=True)
    for scenario in scenarios:
        rounds = found[scenario.name]
        peer = best_peer(rounds)
        for name in rounds[0].servers:
            ours = name == "raylens"
            of_bare = f"{median(r.rate(name) / best(r.bare) for r in rounds):.2f}"
            of_peer = f"{median(r.rate(name) / r.rate(peer) for r in rounds):.2f}" if peer else ""
            grid.add_row(
                scenario.name if ours else "",
                name,
                f"{median(r.rate(name) for r in rounds):.1f}",
                of_bare + (promised(scenario.of_bare) if ours else ""),
                of_peer + promised(scenario.of_infinity) if ours and peer else "",
                *(f"{median(r.percentile_ms(name, p) for r in rounds):.0f}" for p in (50, 95, 99)),
                f"{median(r.servers[name].cpu_ms_per_image for r in rounds):.1f}",
            )
        grid.add_row("", "bare model", f"{median(best(r.bare) for r in rounds):.1f}")
        grid.add_section()
    return grid


def lone_table(rounds: Rounds) -> Table:
    """What a lone caller's image takes besides the model itself."""
    grid = Table(title=f"{LONE.name}, in ms", box=box.SIMPLE_HEAD)
    grid.add_column("server", no_wrap=True)
    for heading in ("p50", "bare model, batch of 1", "p50 beyond it", "p99 / p50"):
        grid.add_column(heading, justify="right")
    alone = median(r.bare[1].batch_ms for r in rounds)
    for name in rounds[0].servers:
        ours = name == "raylens"
        p50s = [r.percentile_ms(name, 50) for r in rounds]
        beyond = median(p50 - r.bare[1].batch_ms for p50, r in zip(p50s, rounds, strict=True))
        tail = median(r.percentile_ms(name, 99) / p50 for p50, r in zip(p50s, rounds, strict=True))
        grid.add_row(
            name,
            f"{median(p50s):.1f}",
            f"{alone:.1f}",
            f"{beyond:+.1f}" + (promised(MOST_BEYOND_BARE_MS) if ours else ""),
            f"{tail:.2f}" + (promised(MOST_P99_OF_P50) if ours else ""),
        )
    return grid


def best_peer(rounds: Rounds) -> str | None:
    """The fastest server but raylens."""
    peers = [name for name in rounds[0].servers if name != "raylens"]
    return max(peers, key=lambda name: median(r.rate(name) for r in rounds), default=None)


def promised(value: float | None) -> str:
    return "" if value is None else f" ({value})"


def memory(found: Mapping[str, Rounds]) -> dict[str, float]:
    """The most that each server was seen to have under load, in MB."""
    most: dict[str, float] = {}
    for rounds in found.values():
        for r in rounds:
            for name, measured in r.servers.items():
                most[name] = max(most.get(name, 0.0), measured.memory_mb)
    return most


def errors(found: Mapping[str, Rounds]) -> list[str]:
    """A clause for each scenario and server that had some."""
    clauses = []
    for scenario, rounds in found.items():
        for name in rounds[0].servers:
            counts: Counter[str] = Counter()
            for r in rounds:
                counts += r.servers[name].run.errors
            if counts:
                clauses.append(f"{scenario}, {name}: {dict(counts)}")
    return clauses


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """All of one server's turns, for a JSON file: lists of one value for each."""
    runs = [m.run for m in measured]
    return {
        "images_per_s": [run.rate for run in runs],
        **{f"p{p}_ms": [run.percentile(p) for run in runs] for p in (50, 95, 99)},
        "cpu_ms_per_image": [m.cpu_ms_per_image for m in measured],
        "memory_mb": [m.memory_mb for m in measured],
        "load_cpu_s": [run.cpu_s for run in runs],
        "errors": [dict(run.errors) for run in runs],
    }


def rounds_figures(rounds: Rounds) -> dict[str, Any]:
    """All of a scenario's rounds, for a JSON file."""
    return {
        "servers": {n: figures([r.servers[n] for r in rounds]) for n in rounds[0].servers},
        "bare": {str(n): [r.bare[n]._asdict() for r in rounds] for n in rounds[0].bare},
    }
