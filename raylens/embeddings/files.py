"""The kinds of embeddings file, each opened without reading its vectors.

A row is a source: its vector, or NaNs where it failed, and a record of all else about it.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

# A block of vectors and what is computed from it fit in memory several times: 32 MB at 512
# dimensions.
BLOCK_ROWS = 16_384
_RECORD = ("source", "sha256", "width", "height", "error")


class EmbeddingsError(ValueError):
    """A file that cannot be used, and why, in a sentence."""


class Record(NamedTuple):
    """What a row says besides its vector; None for what is unknown, or not the case."""

    source: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None


class Block(NamedTuple):
    """Consecutive rows."""

    first: int
    vectors: Vectors


class EmbeddingsFile(Protocol):
    """`len()` is the number of rows; `dimensions` is 0 where no row shows it."""

    dimensions: int
    model: str | None
    revision: str | None

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[Block]:
        """All vectors in their order."""

    def records(self, rows: Sequence[int]) -> list[Record]: ...


class ParquetFile:
    """Vectors come a batch at a time, so that memory stays flat whatever the size of the file."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise EmbeddingsError("Parquet needs pyarrow: pip install 'raylens[parquet]'") from None
        self._file: Any = parquet.ParquetFile(path, memory_map=True)
        schema = self._file.schema_arrow
        missing = {"source", "embedding", "model"} - set(schema.names)
        if missing:
            raise EmbeddingsError(f"it has no column {', '.join(sorted(missing))}")
        kind = schema.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
            raise EmbeddingsError(
                f"its column embedding is {kind}, not a fixed-size list of float32"
            )
        self.dimensions: int = kind.list_size
        self._names = [name for name in _RECORD if name in schema.names]
        groups = self._file.metadata
        counts = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        self._group_ends = np.cumsum(counts, dtype=np.int64)
        named = [name for name in ("model", "revision") if name in schema.names]
        first = next(self._file.iter_batches(batch_size=1, columns=named), None)
        values: dict[str, Any] = first.to_pylist()[0] if first else {}
        self.model: str | None = values.get("model")
        self.revision: str | None = values.get("revision")

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def blocks(self) -> Iterator[Block]:
        first = 0
        for batch in self._file.iter_batches(batch_size=BLOCK_ROWS, columns=["embedding"]):
            yield Block(first, self._vectors(batch.column(0)))
            first += batch.num_rows

    def _vectors(self, column: Any) -> Vectors:
        """A column as an array: a view of it, unless some of its rows failed."""
        start = column.offset * self.dimensions  # `values` does not know of it
        values = column.values.slice(start, len(column) * self.dimensions)
        vectors: Vectors = values.to_numpy(zero_copy_only=False)
        vectors = vectors.reshape(len(column), self.dimensions)
        if column.null_count:
            vectors = vectors.copy()
            vectors[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return vectors

    def records(self, rows: Sequence[int]) -> list[Record]:
        wanted = np.asarray(rows, dtype=np.int64)
        groups = np.searchsorted(self._group_ends, wanted, side="right")
        found: dict[int, Record] = {}
        for group in np.unique(groups):
            start = int(self._group_ends[group - 1]) if group else 0
            here = wanted[groups == group]
            table = self._file.read_row_group(int(group), columns=self._names)
            values = table.take(here - start).to_pylist()
            found |= {int(row): Record(**value) for row, value in zip(here, values, strict=True)}
        return [found[int(row)] for row in wanted]


class ParquetFolder:
    """The parts that `raylens bulk` wrote, in the order of their names.

    Each is opened when it is read, because there may be more of them than open files.
    """

    def __init__(self, path: Path) -> None:
        names = sorted(p for p in path.glob("*.parquet") if not p.name.startswith((".", "_")))
        if not names:
            raise EmbeddingsError("it is a folder without Parquet files")
        self._parts = names
        lengths = []
        self.dimensions = 0
        self.model: str | None = None
        self.revision: str | None = None
        for name in names:
            part = ParquetFile(name)
            lengths.append(len(part))
            self.dimensions = self.dimensions or part.dimensions
            self.model = self.model or part.model
            self.revision = self.revision or part.revision
            if part.dimensions != self.dimensions or part.model not in (None, self.model):
                raise EmbeddingsError(f"{name.name} has vectors of another model than the others")
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def blocks(self) -> Iterator[Block]:
        for number, path in enumerate(self._parts):
            start = self._start(number)
            for block in ParquetFile(path).blocks():
                yield Block(start + block.first, block.vectors)

    def records(self, rows: Sequence[int]) -> list[Record]:
        wanted = np.asarray(rows, dtype=np.int64)
        parts = np.searchsorted(self._ends, wanted, side="right")
        found: dict[int, Record] = {}
        for number in np.unique(parts):
            here = wanted[parts == number]
            records = ParquetFile(self._parts[number]).records(here - self._start(int(number)))
            found |= dict(zip(here.tolist(), records, strict=True))
        return [found[int(row)] for row in wanted]

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0


class JsonLines:
    """One JSON object a row. `vectors` tells whether they are in it too, or in another file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        first = next(iter(self.objects()), {})
        self.model: str | None = first.get("model")
        self.revision: str | None = first.get("revision")
        lengths = (len(o["embedding"]) for o in self.objects() if o.get("embedding"))
        self.dimensions = next(lengths, 0) if "embedding" in first else 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    @cached_property
    def _starts(self) -> "array[int]":
        """Where each line starts, and where the last one ends."""
        starts = array("q", [0])
        with self._path.open("rb") as file:
            for line in file:
                starts.append(starts[-1] + len(line))
        return starts

    def objects(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file):
                yield self._parsed(line, number)

    def _parsed(self, line: bytes, row: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("source"), str):
            raise EmbeddingsError(f"line {row + 1} of {self._path} is not a row of embeddings")
        return value

    def blocks(self) -> Iterator[Block]:
        failed = [np.nan] * self.dimensions
        rows: list[Any] = []
        first = 0
        for value in self.objects():
            rows.append(value.get("embedding") or failed)
            if len(rows) == BLOCK_ROWS:
                yield Block(first, self._array(rows, first))
                first += len(rows)
                rows = []
        if rows:
            yield Block(first, self._array(rows, first))

    def _array(self, rows: list[Any], first: int) -> Vectors:
        try:
            return np.array(rows, dtype=np.float32).reshape(len(rows), self.dimensions)
        except (ValueError, TypeError):
            raise EmbeddingsError(
                f"not every embedding from line {first + 1} of {self._path} on has "
                f"{self.dimensions} numbers"
            ) from None

    def records(self, rows: Sequence[int]) -> list[Record]:
        records = []
        with self._path.open("rb") as file:
            for row in rows:
                file.seek(self._starts[row])
                value = self._parsed(file.readline(), row)
                source, *others = (value.get(name) for name in _RECORD)
                records.append(Record(str(source), *others))
        return records


class NpyFile:
    """A mapped array, beside JSON lines of the same name."""

    def __init__(self, path: Path) -> None:
        lines = path.with_suffix(".jsonl")
        if not lines.is_file():
            raise EmbeddingsError(f"there is no {lines.name} beside it, which names its rows")
        # An array without rows cannot be mapped.
        small = path.stat().st_size < 4096
        array = np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != np.float32:
            raise EmbeddingsError("it is no two-dimensional array of float32")
        self.vectors: Vectors = array
        self._lines = JsonLines(lines)
        self.dimensions = int(array.shape[1])
        self.model = self._lines.model
        self.revision = self._lines.revision

    def __len__(self) -> int:
        return len(self.vectors)

    def blocks(self) -> Iterator[Block]:
        return blocks_of(self.vectors)

    def records(self, rows: Sequence[int]) -> list[Record]:
        if len(self._lines) != len(self):
            raise EmbeddingsError(
                f"its {len(self)} rows are not the {len(self._lines)} of the .jsonl beside it"
            )
        return self._lines.records(rows)


def blocks_of(vectors: Vectors) -> Iterator[Block]:
    for first in range(0, len(vectors), BLOCK_ROWS):
        yield Block(first, vectors[first : first + BLOCK_ROWS])
