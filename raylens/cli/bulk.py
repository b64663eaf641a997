"""`raylens bulk`: whole folders, object stores and datasets, on this machine or a cluster."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from raylens.cli.console import FAILED, UNREACHABLE, USAGE, fail, out
from raylens.cli.embed import INTERRUPTED


def bulk(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, an s3:// or gs:// URI, a Parquet file or a tar; folders may hold all "
            "of these."
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="A folder or URI for the Parquet parts; with .lance at its end, a Lance dataset.",
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="The column of bytes, URLs or paths in Parquet files.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            help="The folder or URI below which Parquet files may name files; by default the "
            "source's own folder."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face id or a checkpoint's folder.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A Serve config, whose settings apply here too.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Run on this Ray instead of starting one."),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Logical processors of the Ray that is started: one for the model, the others "
            "for loading. By default one more than there are.",
        ),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(help="Actors with the model, as in 4 or 1:8; one for each node or GPU."),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(help="Use a running service instead: its URL, or auto for the cluster's."),
    ] = None,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Show a bar.")
    ] = None,
) -> None:
    """Embed whole datasets with Ray Data. Run again after a stop, it goes on. Example:

    raylens bulk s3://bucket/photos s3://bucket/vectors
    """
    if service is not None and (model or config):
        raise typer.BadParameter(
            "the service has its own model and configuration; leave out --model and --config",
            param_hint="--service",
        )
    if address is not None and cpus is not None:
        raise typer.BadParameter(
            f"it is for a Ray that is started here, and this runs on the one at {address}",
            param_hint="--cpus",
        )
    try:
        from raylens import bulk as running
        from raylens import serving
    except ModuleNotFoundError:  # a client-only installation
        fail("this needs the server's packages and Ray Data: pip install 'raylens[bulk]'", FAILED)
    try:
        chosen = serving.read_config(config or serving.default_config(), host=None, port=None)
    except serving.ServingError as error:
        raise typer.BadParameter(str(error), param_hint="--config") from None
    try:
        summary = running.run(
            source,
            destination,
            config=chosen["applications"][0].get("args") or {},
            model=model,
            column=column,
            root=root,
            address=address,
            cpus=cpus,
            replicas=_range(replicas),
            service=service,
            progress=sys.stderr.isatty() if progress is None else progress,
        )
    except running.BulkError as error:
        fail(str(error), USAGE if error.usage else FAILED)
    except (ConnectionError, TimeoutError) as error:
        fail(str(error), UNREACHABLE)
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here", INTERRUPTED)
    out.print(report(summary), markup=False, soft_wrap=True)
    if summary.failed:
        raise typer.Exit(FAILED)


def report(summary: Any) -> str:
    """What was done, and how fast and busy each stage was."""
    rate = summary.rows / max(summary.seconds, 1e-9)
    told = f"{summary.rows:,} images in {summary.seconds:,.1f} s"
    if summary.rows:
        told += f", {rate:,.1f} images/s"
    told += f"; {summary.failed:,} failed" if summary.failed else ""
    told += f"; {summary.before:,} were there before" if summary.before else ""
    told += f"; {summary.skipped:,} other files passed over" if summary.skipped else ""
    lines = [told]
    slowest = max((s.busy for s in summary.stages), default=0.0)
    for stage in summary.stages:
        mark = "  the bottleneck" if stage.busy == slowest else ""
        lines.append(
            f"  {stage.name:<8} {stage.workers:>4} at a time, {stage.busy:>4.0%} busy, "
            f"{stage.images_per_s:>9,.1f} images/s if it never waited{mark}"
        )
    return "\n".join(lines)


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise typer.BadParameter(
            "a number, or the least and the most, as in 1:8", param_hint="--replicas"
        )
    return least, most
