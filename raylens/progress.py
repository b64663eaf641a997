"""How far a long task is: a bar on a terminal, a line a minute elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int, int], None]
"""To be called with how many more items are done, and how many of those failed."""


@contextmanager
def counted(total: int | None, *, shown: bool, every_s: float = 60.0) -> Iterator[Advance]:
    """If `shown`, tells on stderr how many of `total` items are done, how quickly, how many of
    them failed, and how long the rest will take. Where stderr is no terminal, a
    line every `every_s` seconds does."""
    if not shown:
        yield lambda done, failed: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        with _bar(console, total) as advance:
            yield advance
    else:
        yield _lines(total, every_s)


def _lines(total: int | None, every_s: float) -> Advance:
    done = failed = 0
    began = told = time.monotonic()

    def advance(more: int, more_failed: int) -> None:
        nonlocal done, failed, told
        done, failed, now = done + more, failed + more_failed, time.monotonic()
        if now - told < every_s:
            return
        told = now
        rate = done / (now - began)
        line = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        line += f", {rate:,.1f}/s" + (f", {failed:,} failed" if failed else "")
        if total is not None and rate:
            line += f", {timedelta(seconds=round((total - done) / rate))} left"
        print(line, file=sys.stderr, flush=True)

    return advance


@contextmanager
def _bar(console: "Console", total: int | None) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("[red]{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=total, rate="", failed="")
        count = 0

        def advance(done: int, failed: int) -> None:
            nonlocal count
            count += failed
            progress.advance(bar, done)
            speed = progress.tasks[bar].finished_speed or progress.tasks[bar].speed
            rate = f"{speed:,.1f}/s" if speed else ""
            shown_failures = f"{count:,} failed" if count else ""
            progress.update(bar, rate=rate, failed=shown_failures)

        yield advance
