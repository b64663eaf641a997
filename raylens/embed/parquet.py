"""Embeddings as one Parquet file, which pyarrow, pandas, polars, DuckDB and LanceDB read."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from raylens.embed.rows import NOT_OURS, FormatError, Identity, Row, as_object, from_object

_KEY = b"raylens"
# Of vectors in a row group: large enough for readers, small enough to write with flat memory.
_GROUP_BYTES = 4 * 1024 * 1024
_PAGE_BYTES = 64 * 1024  # pyarrow's 1 MB takes 20 MB more while it writes


class Parquet:
    """`photos.parquet`, with row groups of some hundred to ten thousand rows."""

    def files(self, out: Path) -> list[Path]:
        return [out]

    def check(self) -> None:
        if find_spec("pyarrow") is None:  # imported later: it takes 60 MB
            raise FormatError(
                "Parquet needs pyarrow: pip install 'raylens[parquet]', or write a .npy or .jsonl"
            )

    def write(self, out: Path, rows: Iterator[Row], identity: Identity) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema(identity)
        count = max(1, min(10_000, _GROUP_BYTES // (4 * identity.dimensions)))
        few_values = ["model", "revision"]
        with pq.ParquetWriter(
            out, schema, use_dictionary=few_values, data_page_size=_PAGE_BYTES
        ) as writer:
            while group := list(itertools.islice(rows, count)):
                columns = pa.Table.from_pylist(
                    [as_object(row, identity) for row in group], schema.remove(_EMBEDDING)
                )
                writer.write_table(
                    columns.add_column(
                        _EMBEDDING, schema.field(_EMBEDDING), _vectors(group, schema)
                    )
                )

    def identity(self, out: Path) -> Identity | None:
        with _whole(out):
            return Identity.from_json(_open(out).schema_arrow.metadata[_KEY])

    def read(self, out: Path, *, vectors: bool = True) -> Iterator[Row]:
        with _whole(out):
            yield from self._read(out, vectors)

    def _read(self, out: Path, vectors: bool) -> Iterator[Row]:
        file = _open(out)
        names = [n for n in file.schema_arrow.names if vectors or n != "embedding"]
        for batch in file.iter_batches(batch_size=1000, columns=names):
            entries = batch.drop_columns(["embedding"] if vectors else []).to_pylist()
            embeddings: Any = itertools.repeat(None)
            if vectors:
                column = batch.column("embedding")
                flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                good = iter(flat.reshape(-1, column.type.list_size))
                embeddings = (
                    next(good) if there else None for there in column.is_valid().to_pylist()
                )
            for entry, embedding in zip(entries, embeddings, strict=False):
                yield from_object(entry, embedding)


_EMBEDDING = 4  # the column's place


def _schema(identity: Identity) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("embedding", pa.list_(pa.float32(), identity.dimensions)),
            ("error", pa.string()),
            ("model", pa.string()),
            ("revision", pa.string()),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
        ],
        metadata={_KEY: identity.to_json()},
    )


def _vectors(rows: list[Row], schema: Any) -> Any:
    import pyarrow as pa

    kind = schema.field(_EMBEDDING).type
    missing = np.zeros(kind.list_size, np.float32)
    flat = np.concatenate([missing if r.embedding is None else r.embedding for r in rows])
    failed = pa.array([row.embedding is None for row in rows])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=failed)


def _open(out: Path) -> Any:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(out)
    if _KEY not in (file.schema_arrow.metadata or {}):
        raise FormatError(NOT_OURS.format(out))
    return file


@contextmanager
def _whole(out: Path) -> Iterator[None]:
    """Inside, what pyarrow cannot read, or finds without our columns, is not our file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, LookupError, TypeError, ValueError):
        raise FormatError(NOT_OURS.format(out)) from None
    except OSError as error:
        if error.errno is not None:  # of the disk
            raise
        raise FormatError(f"{out} is damaged ({error}); --fresh replaces it") from None
