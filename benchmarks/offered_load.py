"""How much of an offered load each server answers, and how late: an open loop at rising rates.

One caller sends one image, at rates that are fractions of the bare model's best.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich import box
from rich.table import Table

from benchmarks.bench import Bench, Measured
from benchmarks.report import figures
from benchmarks.scenarios import Scenario
from benchmarks.servers import Server

OFFERED_LOAD = "offered load"
FRACTIONS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.1)


class Point(NamedTuple):
    """One server at one rate."""

    server: str
    fraction: float
    """Of the bare model's best."""
    measured: Measured

    @property
    def offered(self) -> float:
        """Images/s, as many as really were due."""
        run = self.measured.run
        return (len(run.latencies_ms) + run.errors.total()) / run.seconds


def measure(bench: Bench, targets: Sequence[Server], bare_best: float) -> list[Point]:
    """Each server in turn at each rate, from the lowest on. `bare_best` is in images/s."""
    scenario = Scenario(OFFERED_LOAD, callers=0, images=1)
    return [
        Point(server.name, fraction, bench.open_loop(server, scenario, fraction * bare_best))
        for fraction in FRACTIONS
        for server in targets
    ]


def table(points: Sequence[Point]) -> Table:
    grid = Table(title="Offered load: 1 image in a request, an open loop", box=box.SIMPLE_HEAD)
    grid.add_column("of bare", justify="right")
    grid.add_column("server", no_wrap=True)
    for heading in ("offered/s", "images/s", "p50 ms", "p99 ms", "CPU ms", "errors"):
        grid.add_column(heading, justify="right")
    for point in points:
        run = point.measured.run
        grid.add_row(
            f"{point.fraction:.2f}" if point.server == points[0].server else "",
            point.server,
            f"{point.offered:.1f}",
            f"{run.rate:.1f}",
            f"{run.percentile(50):.0f}",
            f"{run.percentile(99):.0f}",
            f"{point.measured.cpu_ms_per_image:.1f}",
            str(run.errors.total()),
        )
    return grid


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {"server": p.server, "fraction": p.fraction, "offered_per_s": p.offered}
        | {name: values[0] for name, values in figures([p.measured]).items()}
        for p in points
    ]


def plot(points: Sequence[Point], bare_best: float, title: str, file: Path) -> None:
    """A PNG of two panels over the offered load: what was answered, and the slowest hundredth."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(title)
    answered, late = figure.subplots(1, 2)
    for server in dict.fromkeys(p.server for p in points):
        own = [p for p in points if p.server == server]
        offered = [p.offered for p in own]
        answered.plot(offered, [p.measured.run.rate for p in own], marker="o", label=server)
        late.plot(offered, [p.measured.run.percentile(99) for p in own], marker="o", label=server)
    answered.axhline(
        bare_best, color="black", linestyle="--", label=f"bare model's best, {bare_best:.0f}"
    )
    most = max(p.offered for p in points)
    answered.plot([0, most], [0, most], color="lightgrey", zorder=0, label="all that is offered")
    late.set_yscale("log")
    late.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    late.yaxis.set_major_formatter("{x:,.0f}")
    late.yaxis.set_minor_formatter("{x:,.0f}")
    answered.set_ylim(bottom=0)
    _name(answered, "Throughput", "answered [images/s]")
    _name(late, "Latency", "p99 from when the request was due [ms]")
    figure.legend(*answered.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(file, dpi=120)


def _name(axes: Axes, title: str, y: str) -> None:
    axes.set(title=title, xlabel="offered [images/s]", ylabel=y)
    axes.set_xlim(left=0)
    axes.grid(which="both", alpha=0.3)
