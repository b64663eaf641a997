"""What a job has done so far, on disk: a SQLite database beside the file that it will become.

A process that is killed loses the rows since the last `commit` and nothing else. The journal holds
new rows only; those of an older OUT stay there, and only an index of them is kept here.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raylens.embed.rows import Identity, Row

_PAGE = 1000  # rows read at a time, so that no statement is open while others write

_TABLES = """
CREATE TABLE IF NOT EXISTS info (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, source TEXT UNIQUE, sha256 TEXT, width INTEGER, height INTEGER,
    size_bytes INTEGER, mtime_ns INTEGER, embedding BLOB, error TEXT);
DROP TABLE IF EXISTS earlier;
CREATE TABLE earlier (
    source TEXT PRIMARY KEY, size_bytes INTEGER, mtime_ns INTEGER, error TEXT) WITHOUT ROWID;
DROP TABLE IF EXISTS todo;
CREATE TABLE todo (id INTEGER PRIMARY KEY, source TEXT UNIQUE, path BLOB);
DROP TABLE IF EXISTS escaped;
CREATE TABLE escaped (source TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class JournalError(Exception):
    """The journal cannot be used; its text is for the user."""


class Journal:
    """The rows of one OUT that are not in it yet, and the sources that are still to be embedded.

    For one process at a time, and in it for one thread at a time.
    """

    def __init__(self, path: Path) -> None:
        """Opens the journal, or starts one. Raises JournalError if another process has it."""
        self.path = path
        self._database = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._run("PRAGMA page_size = 16384")  # three vectors of 1280 dimensions
            self._run("PRAGMA locking_mode = EXCLUSIVE")
            self._run("PRAGMA journal_mode = WAL")
            self._run("PRAGMA synchronous = FULL")  # commits survive power cuts too
            self._database.executescript(_TABLES)
            self._run("BEGIN")
        except sqlite3.DatabaseError as error:
            self._database.close()
            if "locked" in str(error):
                raise JournalError("another raylens embed writes the same file now") from None
            raise JournalError(f"{path} cannot be used: {error}") from None

    def __getitem__(self, name: str) -> str | None:
        """A note that is kept with the rows."""
        found = self._run("SELECT value FROM info WHERE name = ?", name).fetchone()
        return None if found is None else str(found[0])

    def __setitem__(self, name: str, value: str) -> None:
        self._run("INSERT OR REPLACE INTO info VALUES (?, ?)", name, value)

    @property
    def identity(self) -> Identity | None:
        """Whose vectors the rows are; None as long as there are no rows."""
        kept = self["identity"]
        return Identity.from_json(kept) if kept and self.has_rows() else None

    def clear(self) -> None:
        """Forgets everything."""
        self._database.executescript("DELETE FROM rows; DELETE FROM info; DELETE FROM earlier;")

    def index(self, rows: Iterable[Row]) -> None:
        """Takes note of the rows of an older OUT."""
        self._database.executemany(
            "INSERT OR REPLACE INTO earlier VALUES (?, ?, ?, ?)",
            ((row.source, row.size_bytes, row.mtime_ns, row.error) for row in rows),
        )

    def known(self, source: str) -> Row | None:
        """The newest row of a source, without vector."""
        found = self._run(
            "SELECT size_bytes, mtime_ns, error FROM rows WHERE source = ?1 UNION ALL "
            "SELECT size_bytes, mtime_ns, error FROM earlier WHERE source = ?1 LIMIT 1",
            source,
        ).fetchone()
        if found is None:
            return None
        return Row(source, size_bytes=found[0], mtime_ns=found[1], error=found[2])

    def want(self, source: str, path: bytes | None) -> None:
        """Puts a source on the list of those to be embedded, once. `path` is the file, if it has
        a name that is no text."""
        self._run("INSERT OR IGNORE INTO todo (source, path) VALUES (?, ?)", source, path)

    def todo_count(self) -> int:
        return int(self._run("SELECT count(*) FROM todo").fetchone()[0])

    def todo(self) -> Iterator[tuple[str, bytes | None]]:
        """What is on the list and was not added since."""
        last = 0
        while page := self._run(
            "SELECT id, source, path FROM todo WHERE id > ? ORDER BY id LIMIT ?", last, _PAGE
        ).fetchall():
            for _, source, path in page:
                yield source, path
            last = page[-1][0]

    def add(self, row: Row) -> None:
        """A row in the place of the one that the source may have had, off the list."""
        vector = row.embedding
        self._run(
            "INSERT OR REPLACE INTO rows VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(row.source, row.sha256, row.width, row.height, row.size_bytes, row.mtime_ns),
            None if vector is None else vector.astype("<f4").tobytes(),
            row.error,
        )
        self._run("DELETE FROM todo WHERE source = ?", row.source)

    def below(self, folder: str) -> Iterator[str]:
        """The sources with a row in a folder or below."""
        last, end = f"{folder.rstrip('/')}/", f"{folder.rstrip('/')}0"  # "0" comes after "/"
        while page := self._run(
            "SELECT source FROM rows WHERE source > ?1 AND source < ?2 UNION "
            "SELECT source FROM earlier WHERE source > ?1 AND source < ?2 ORDER BY source LIMIT ?3",
            *(last, end, _PAGE),
        ).fetchall():
            for (source,) in page:
                yield source
            last = page[-1][0]

    def escaped(self, source: str) -> None:
        """Takes note of a file that was found, but that cannot be found by its source: its name is
        no text."""
        self._run("INSERT OR IGNORE INTO escaped VALUES (?)", source)

    def was_escaped(self, source: str) -> bool:
        return bool(self._run("SELECT 1 FROM escaped WHERE source = ?", source).fetchone())

    def drop(self, source: str) -> None:
        self._run("DELETE FROM rows WHERE source = ?", source)
        self._run("DELETE FROM earlier WHERE source = ?", source)

    def keeps(self, source: str) -> bool:
        """Whether an older OUT's row of this source is still the newest."""
        return bool(
            self._run(
                "SELECT 1 FROM earlier WHERE source = ?1 "
                "AND NOT EXISTS (SELECT 1 FROM rows WHERE source = ?1)",
                source,
            ).fetchone()
        )

    def has_rows(self) -> bool:
        return bool(self._run("SELECT 1 FROM rows LIMIT 1").fetchone())

    def rows(self) -> Iterator[Row]:
        """All new rows, in the order in which they were added."""
        last = 0
        while page := self._run(
            "SELECT * FROM rows WHERE id > ? ORDER BY id LIMIT ?", last, _PAGE
        ).fetchall():
            for _, source, sha256, width, height, size_bytes, mtime_ns, vector, error in page:
                embedding = None if vector is None else np.frombuffer(vector, "<f4")
                yield Row(source, sha256, width, height, size_bytes, mtime_ns, embedding, error)
            last = page[-1][0]

    def commit(self) -> None:
        if self._database.in_transaction:  # not after SQLite itself had to give it up
            self._run("COMMIT")
        self._run("BEGIN")

    def rollback(self) -> None:
        """Forgets what was done since the last commit."""
        self._run("ROLLBACK")
        self._run("BEGIN")

    def close(self) -> None:
        """Closes the journal, and removes it if it is empty. What was not committed is lost."""
        try:
            if self._database.in_transaction:
                self._run("ROLLBACK")
            if not self.has_rows():
                self.remove()
        finally:
            self._database.close()

    def remove(self) -> None:
        """Deletes the files while they are still locked, so that no other process uses them."""
        remove(self.path)

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._database.execute(statement, values)


def remove(path: Path) -> None:
    """Deletes a journal's files, the database first: alone, its log means nothing."""
    for name in (path, path.with_name(f"{path.name}-wal")):
        name.unlink(missing_ok=True)
