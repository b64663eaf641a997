"""One run of `raylens embed`: finds out what is to be done, has it embedded, and writes OUT.

At every moment OUT and its journal together hold what was done, so that a run may be killed
anywhere. OUT changes at the end, all at once.
"""

import math
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from raylens.client.errors import ApiError
from raylens.client.items import Item
from raylens.client.methods import AsyncMethods
from raylens.client.pipeline import Failure
from raylens.client.transport import EmbedOptions, Vector
from raylens.embed.files import ImageFile
from raylens.embed.formats import format_of
from raylens.embed.journal import Journal
from raylens.embed.rows import FormatError, Identity, Row
from raylens.embed.sources import SourceError, Sources, is_url
from raylens.progress import Advance

# So much work is lost at most when the process is killed.
_COMMIT_EVERY_S = 1.0
_SHOWN_FAILURES = 5
# What failed for one of these is tried once more at the end, when it may be past.
_PASSING = {"deadline_exceeded", "unavailable", "overloaded", "fetch_timeout", "fetch_bad_gateway"}


class IdentityError(Exception):
    """The service's model is not the one whose vectors are there; its text is for the user."""


@dataclass
class Report:
    """What a run has done."""

    embedded: int = 0
    failed: int = 0
    unchanged: int = 0
    gone: int = 0
    took_s: float = 0.0
    failures: list[Row] = field(default_factory=list)
    """The first few."""


class EmbedJob:
    """Makes or updates `out`. For one process at a time."""

    def __init__(self, out: Path, *, fresh: bool = False) -> None:
        """Opens the journal. Raises FormatError for what is no such file, and JournalError."""
        self._out = out
        self._format = format_of(out)
        if not out.absolute().parent.is_dir():
            raise FormatError(f"there is no folder {out.parent}")
        self._journal = Journal(journal_path(out))
        self.report = Report()
        try:
            if fresh:
                self._journal.clear()
                self._journal["fresh"] = "yes"
                self._journal.commit()
            elif self._journal["whole"]:
                self._publish()  # it was killed in the middle of this
            self._has_earlier = not self._journal["fresh"] and self._earlier_is_there()
        except BaseException:
            self._journal.close()
            raise

    def close(self) -> None:
        self._journal.close()

    def accept(self, identity: Identity) -> None:
        """Raises IdentityError if there are vectors of another model already."""
        earlier = self._format.identity(self._out) if self._has_earlier else None
        for there in (earlier, self._journal.identity):
            if there not in (None, identity):
                raise IdentityError(
                    f"{self._out} holds vectors of {there}, and the service has {identity}: the "
                    "two must not be mixed. Choose another file, or --fresh to start anew"
                )
        self._identity = identity
        self._journal["identity"] = identity.to_json()

    def scan(self, sources: Sources) -> int:
        """Finds what is to be embedded; how many that are. Raises SourceError if there is nothing
        at all, which is more often an unmounted disk than meant."""
        if self._has_earlier:
            self._journal.index(self._format.read(self._out, vectors=False))
        for name in sources:
            # A name that is no text has no place in a file; the bytes it stands for are kept.
            source = os.fsencode(name).decode("utf-8", "backslashreplace")
            if source != name:
                self._journal.escaped(source)
            if self._is_done(source, name):
                self.report.unchanged += 1
            else:
                self._journal.want(source, os.fsencode(name) if name != source else None)
        todo = self._journal.todo_count()
        if not (todo or self.report.unchanged):
            raise SourceError("there are no images")
        for folder in sources.folders:
            for source in self._journal.below(folder):
                if not self._journal.was_escaped(source) and _is_gone(source):
                    self._journal.drop(source)
                    self.report.gone += 1
        self._journal.commit()
        return todo

    async def embed(self, client: AsyncMethods, advance: Advance) -> None:
        """Embeds what was found. Whatever ends this, a later run goes on from there."""
        began, again = time.monotonic(), True
        try:
            while left := self._journal.todo_count():
                try:
                    await self._embed_todo(client, advance, again=again)
                    again = False
                except TimeoutError:  # of one request
                    if self._journal.todo_count() == left:
                        raise
        except (IdentityError, sqlite3.Error):
            raise
        except BaseException:  # Ctrl-C too
            self._journal.commit()
            raise
        finally:
            self.report.took_s = time.monotonic() - began

    def finish(self) -> None:
        """Writes OUT, if there is anything new."""
        if not (self._journal.has_rows() or self.report.gone or self._journal["fresh"]):
            return
        new = self._new
        try:
            self._format.write(new, self._all_rows(), self._identity)
            for path in self._format.files(new):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        except BaseException:
            for path in self._format.files(new):  # the disk may be full
                path.unlink(missing_ok=True)
            raise
        self._journal["whole"] = "yes"
        self._journal.commit()
        self._publish()

    @property
    def _new(self) -> Path:
        return self._out.with_name(f"{self._journal.path.name}.new{self._out.suffix}")

    def _publish(self) -> None:
        """Puts files that are whole in their place. Does the rest if it was begun before."""
        for new, old in zip(
            self._format.files(self._new), self._format.files(self._out), strict=True
        ):
            if new.exists():
                new.replace(old)
        folder = os.open(self._out.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._journal.clear()
        self._journal.commit()

    def _earlier_is_there(self) -> bool:
        files = self._format.files(self._out)
        there = [path for path in files if path.exists()]
        if there and len(there) < len(files):
            raise FormatError(
                f"{there[0]} is there already, but not what belongs to it; choose another file, or "
                "--fresh to replace it"
            )
        return bool(there)

    def _is_done(self, source: str, name: str) -> bool:
        known = self._journal.known(source)
        if known is None or known.error is not None:
            return False
        if is_url(source):
            return True
        try:
            status = Path(name).stat()
        except OSError:
            return False
        return (known.size_bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns)

    async def _embed_todo(self, client: AsyncMethods, advance: Advance, *, again: bool) -> None:
        """Embeds the list from its start; with `again`, passing failures stay on it."""
        waiting: deque[Row] = deque()  # those of the items that are under way

        def items() -> Iterator[Item]:
            for source, path in self._journal.todo():
                waiting.append(Row(source))
                if is_url(source):
                    yield {"url": source}
                else:
                    yield ImageFile(Path(os.fsdecode(path or source)), waiting[-1])

        # Nobody else's model, even if the service gets another one by default.
        options = EmbedOptions(self._identity.model, self._identity.dimensions)
        committed = -math.inf
        async with aclosing(client.rows(items(), options)) as batches:
            async for results in batches:
                for result in results:
                    row = waiting.popleft()
                    if not (again and getattr(result, "code", None) in _PASSING):
                        self._add(row, result)
                        advance(1, row.error is not None)
                if time.monotonic() - committed > _COMMIT_EVERY_S:
                    await self._commit(client)
                    committed = time.monotonic()
        await self._commit(client)

    def _add(self, row: Row, result: Vector | Failure) -> None:
        if isinstance(result, Exception):
            row.error = _error(result)
            self.report.failed += 1
            if len(self.report.failures) < _SHOWN_FAILURES:
                self.report.failures.append(row)
        elif len(result) != self._identity.dimensions:
            self._refuse_change()
        else:
            row.embedding = result
            self.report.embedded += 1
        self._journal.add(row)

    async def _commit(self, client: AsyncMethods) -> None:
        """Keeps what was added, all of which is by the same model if that is still there."""
        if await served(client, self._identity.model, self._identity.dimensions) != self._identity:
            self._refuse_change()
        self._journal.commit()

    def _refuse_change(self) -> NoReturn:
        self._journal.rollback()
        raise IdentityError(
            f"the service switched models during the run, and no longer has {self._identity}; "
            "rows embedded before that are kept"
        )

    def _all_rows(self) -> Iterator[Row]:
        """What is still good of an older OUT in its order, and then what is new."""
        if self._has_earlier:
            yield from (
                row for row in self._format.read(self._out) if self._journal.keeps(row.source)
            )
        yield from self._journal.rows()


def journal_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.journal")


async def served(client: AsyncMethods, model: str | None, dimensions: int | None) -> Identity:
    """What the service embeds with. Raises IdentityError if it has no such model, or one that gives
    several vectors for each image."""
    models = await client.models()
    for entry in models:
        if model is None or model == entry["id"] or model in entry["aliases"]:
            if entry.get("vectors_per_image", 1) > 1:
                raise IdentityError(
                    f"{entry['id']} gives {entry['vectors_per_image']} vectors for each image, and "
                    "the file keeps one; name another with --model, or use raylens.Client"
                )
            return Identity(entry["id"], entry["revision"], dimensions or entry["dimensions"])
    names = ", ".join(entry["id"] for entry in models)
    raise IdentityError(f"the service has no model {model}; it has {names}")


def _is_gone(source: str) -> bool:
    try:
        Path(source).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there
        return False
    return False


def _error(failure: Failure) -> str:
    if isinstance(failure, ApiError):
        return f"{failure.code}: {failure.message}"
    if isinstance(failure, FileNotFoundError):
        return "path_not_found: There is no such file."
    if isinstance(failure, OSError):
        return f"path_not_readable: {failure.strerror or failure}."
    return f"invalid_item: {failure}"
