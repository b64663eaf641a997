"""What a file of embeddings holds: a row for each source, all by one model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FormatError(Exception):
    """A file that cannot be written or read as embeddings; its text is for the user."""


@dataclass(frozen=True)
class Identity:
    """Whose vectors a file holds; vectors of different identities must not be mixed."""

    model: str
    revision: str | None
    dimensions: int

    def __str__(self) -> str:
        revision = f", revision {self.revision}" if self.revision else ""
        return f"{self.model} ({self.dimensions} dimensions{revision})"

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Identity":
        return cls(**json.loads(text))


@dataclass(slots=True)
class Row:
    """A source and its vector, or why it has none."""

    source: str
    """The absolute path of a file, or a URL."""
    sha256: str | None = None
    """Hex, of the file's bytes; None for URLs, like the next four."""
    width: int | None = None
    height: int | None = None
    """As the file's header says, before EXIF turns the image."""
    size_bytes: int | None = None
    mtime_ns: int | None = None
    """With the size, tells whether the file was changed since."""
    embedding: NDArray[np.float32] | None = None
    """(D,); None if it failed."""
    error: str | None = None
    """ "code: message"; None if it did not fail."""


class Format(Protocol):
    """A kind of file."""

    def files(self, out: Path) -> list[Path]:
        """The files that `out` consists of, itself the last."""

    def check(self) -> None:
        """Raises FormatError if a package is missing."""

    def write(self, out: Path, rows: Iterator[Row], identity: Identity) -> None:
        """Writes all rows, with flat memory."""

    def identity(self, out: Path) -> Identity | None:
        """The model of `out`; None if it cannot be told because no row has a vector."""

    def read(self, out: Path, *, vectors: bool = True) -> Iterator[Row]:
        """The rows, with flat memory; without `vectors`, sooner. Raises FormatError for what
        `write` did not write."""


NOT_OURS = "{} is not a file that raylens embed wrote; choose another, or --fresh to replace it"

# Everything but the embedding and whose it is.
_FACTS = ("source", "sha256", "width", "height", "error", "size_bytes", "mtime_ns")
KEYS = frozenset((*_FACTS, "model", "revision"))


def as_object(row: Row, identity: Identity) -> dict[str, Any]:
    """A row as a JSON object, without its embedding."""
    facts = {name: getattr(row, name) for name in _FACTS}
    return {**facts, "model": identity.model, "revision": identity.revision}


def from_object(entry: Mapping[str, Any], embedding: NDArray[np.float32] | None) -> Row:
    """The row of which `as_object` made `entry`."""
    return Row(**{name: entry[name] for name in _FACTS}, embedding=embedding)
