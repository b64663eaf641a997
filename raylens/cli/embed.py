"""`raylens embed`: images to a file of embeddings."""

import asyncio
import io
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from raylens.cli.console import (
    FAILED,
    USAGE,
    ShowProgress,
    Url,
    err,
    fail,
    out,
    plain,
    service_errors,
)
from raylens.client.clients import AsyncClient
from raylens.client.errors import ApiError
from raylens.client.http import DEFAULT_URL
from raylens.embed.job import EmbedJob, IdentityError, Report, served
from raylens.embed.journal import JournalError
from raylens.embed.rows import FormatError
from raylens.embed.sources import SourceError, Sources
from raylens.progress import Advance, counted

INTERRUPTED = 130  # as shells report Ctrl-C
# A service that restarts is waited for, two minutes.
_RETRIES = 12


def embed(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders with all below them, 'globs', URLs, @list.txt, or - for stdin.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--out", "-o", help="A .parquet, .npy (and .jsonl beside it) or .jsonl file."),
    ],
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="One of the service's models.")] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Shorter vectors, if the model allows them.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, whatever was embedded before.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    progress: ShowProgress = True,
) -> None:
    """Embed images into one file.

    Stopped and started again, it goes on. Run once more, it embeds what is new, changed or failed.
    Example:

    raylens embed photos/ -o photos.parquet
    """
    with _errors(output, fresh):
        found = Sources(source, _stdin() if "-" in source else io.BytesIO())
        clients = _clients(url, concurrency)
        with closing(EmbedJob(output, fresh=fresh)) as job:
            asyncio.run(_accept(job, clients[0], model, dimensions))
            with err.status("Looking for images…"):
                todo = job.scan(found)
            for folder, reason in found.unreadable.items():
                err.print(plain(f"{folder}: {reason}"), markup=False, soft_wrap=True)
            if todo:
                with counted(todo, shown=progress) as advance:
                    asyncio.run(_embed(job, clients[1], advance))
            job.finish()
            _tell(job.report, output)
    if job.report.failed or found.unreadable:
        raise typer.Exit(FAILED)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("standard input is closed")
    return sys.stdin.buffer


async def _accept(
    job: EmbedJob, client: AsyncClient, model: str | None, dimensions: int | None
) -> None:
    async with client:
        job.accept(await served(client, model, dimensions))


async def _embed(job: EmbedJob, client: AsyncClient, advance: Advance) -> None:
    try:
        async with client:
            await job.embed(client, advance)
    except (ApiError, ConnectionError, TimeoutError) as error:
        if isinstance(error, ApiError) and error.status != 503:
            raise
        raise ConnectionError(
            f"{error}; what is done is kept, and the command goes on later"
        ) from None


def _clients(url: str, concurrency: int) -> tuple[AsyncClient, AsyncClient]:
    """One for the first question, which tells soon if nobody is there, and one that waits for a
    service that restarts."""
    try:
        return (
            AsyncClient(url, retries=3),
            AsyncClient(url, max_concurrency=concurrency, retries=_RETRIES),
        )
    except ValueError as error:
        fail(str(error), USAGE)


def _tell(report: Report, output: Path) -> None:
    for row in report.failures:
        err.print(plain(f"{row.source}: {row.error}"), markup=False, soft_wrap=True)
    if report.failed > len(report.failures):
        more = f"… and {report.failed - len(report.failures):,} more, see {output}"
        err.print(plain(more), markup=False, soft_wrap=True)
    rate = report.embedded / report.took_s if report.took_s else 0
    parts = [f"{report.embedded:,} embedded"]
    parts += [
        f"{count:,} {what}"
        for what, count in vars(report).items()
        if what in ("failed", "unchanged", "gone") and count
    ]
    parts += [f"{rate:,.1f}/s"] if report.embedded else []
    out.print(plain(f"{', '.join(parts)} -> {output}"), markup=False, soft_wrap=True)


@contextmanager
def _errors(output: Path, fresh: bool) -> Iterator[None]:
    """Whatever may end a job is a sentence, and says how to go on."""
    again = "the same command" + (" without --fresh" if fresh else "")
    try:
        with service_errors():
            yield
    except (FormatError, SourceError, IdentityError) as error:
        fail(str(error), USAGE)
    except JournalError as error:
        fail(str(error), FAILED)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail(f"{output} cannot be written: {reason}; afterwards, {again} goes on", FAILED)
    except KeyboardInterrupt:
        fail(f"stopped; {again} goes on from there", INTERRUPTED)
