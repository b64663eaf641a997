"""`raylens bench`: what a running service does on its machine."""

import asyncio
import json
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.table import Column, Table

from raylens import bench as benchmark
from raylens.cli.console import (
    FAILED,
    UNREACHABLE,
    USAGE,
    Url,
    authorization,
    calling,
    check_output,
    err,
    fail,
    out,
    plain,
)
from raylens.client.connections import Connections
from raylens.client.http import DEFAULT_URL, needs_proxy


def bench(
    url: Url = DEFAULT_URL,
    seconds: Annotated[float, typer.Option(min=1, help="For each load.")] = 10.0,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of your own JPEGs; without one, made-up 640 x 480 photos."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write the figures to this file, as JSON.")
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, help="Of the model, that are running; for raylens plan.")
    ] = 1,
) -> None:
    """Measure a running service with 1, 16 and 64 callers, and in batches.

    It keeps the service as busy as it can: do not point it at one that others need. Example:

    raylens bench --plot bench.png
    """
    if plot is not None and plot.suffix != ".png":
        fail("--plot draws PNGs: give it a name that ends in .png", USAGE)
    if plot is not None and find_spec("matplotlib") is None:
        fail("--plot needs matplotlib: pip install 'raylens[plot]'", FAILED)
    check_output(plot)
    check_output(profile)
    chosen = _photos(images)
    with calling(url) as client:
        models = client.models()
    if not models:
        fail(f"the service at {url} has no model", FAILED)
    model = models[0]
    runs = asyncio.run(_run_all(url, seconds, chosen))
    out.print(_table(runs))
    name = f"{model['id']}, {model['engine']} on {model['device']} in {model['precision']}"
    out.print(plain(name), markup=False, soft_wrap=True)
    try:
        if profile is not None:
            profile.write_text(
                json.dumps(benchmark.profile(model, runs, replicas), indent=2) + "\n"
            )
        if plot is not None:
            benchmark.plot(runs, name, str(plot))
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", FAILED)
    for run in runs:
        for code, number in run.failed.items():
            err.print(plain(f"{run.load.name}: {number} requests failed with {code}"), markup=False)
    if any(run.failed for run in runs):
        raise typer.Exit(FAILED)


def _photos(folder: Path | None) -> list[bytes]:
    if folder is None:
        return benchmark.photos()
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:200]
    if not paths:
        fail(f"there are no JPEGs in {folder}", USAGE)
    return [path.read_bytes() for path in paths]


async def _run_all(url: str, seconds: float, images: list[bytes]) -> list[benchmark.Run]:
    connections = Connections(
        max(load.callers for load in benchmark.LOADS),
        base_url=url,
        headers=authorization(),
        timeout=60,
        trust_env=needs_proxy(url),
    )
    with err.status("warming up") as status:
        async with aclosing(connections):
            try:
                return await benchmark.measure(
                    connections, benchmark.LOADS, seconds, images, status.update
                )
            except httpx.HTTPError as error:
                fail(f"the service at {url} went away ({error!r})", UNREACHABLE)


def _table(runs: list[benchmark.Run]) -> Table:
    table = Table(
        Column("callers", no_wrap=True), "images/s", "p50", "p99", "decode", "queue", "model"
    )
    for run in runs:
        stages = run.as_json()["stages_p50_ms"]
        table.add_row(
            run.load.name,
            f"{run.images_per_s:.1f}",
            *(f"{run.percentile_ms(percent):.1f} ms" for percent in (50, 99)),
            *(f"{stages.get(stage, 0):.1f} ms" for stage in ("decode", "queue", "model")),
        )
    return table
