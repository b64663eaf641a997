"""A progress bar with the rate, the failures and the time left."""

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any


@contextmanager
def counted(items: Any, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A function to call with how many more items are done, and how many of those failed. If
    `shown`, a bar on stderr tells; without a length, `items` have no end to show."""
    if not shown:
        yield lambda done, failed: None
        return
    from rich.console import Console
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = len(items) if isinstance(items, Sized) else None
        bar = progress.add_task("", total=total, rate="", failed="")
        count = 0

        def advance(done: int, failed: int) -> None:
            nonlocal count
            count += failed
            progress.advance(bar, done)
            speed = progress.tasks[bar].finished_speed or progress.tasks[bar].speed
            rate = f"{speed:,.1f}/s" if speed else ""
            shown_failures = f"{count} failed" if count else ""
            progress.update(bar, rate=rate, failed=shown_failures)

        yield advance
