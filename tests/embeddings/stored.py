"""Writes embeddings files of each kind, in the shared format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

KINDS = ("photos.parquet", "photos.npy", "photos.jsonl")


def store(
    path: Path,
    vectors: NDArray[Any],
    sources: Sequence[str] | None = None,
    *,
    failed: Sequence[int] = (),
    model: str = "fake",
    revision: str | None = "r1",
    sizes: Sequence[tuple[int, int]] | None = None,
    group_rows: int = 100,
) -> Path:
    """A file with these vectors, but for the rows that failed. Returns its path."""
    vectors = vectors.astype(np.float32)
    names = sources or [f"/photos/{number}.jpg" for number in range(len(vectors))]
    rows: list[dict[str, Any]] = [
        {
            "source": name,
            "sha256": None,
            "width": sizes[row][0] if sizes else None,
            "height": sizes[row][1] if sizes else None,
            "error": "corrupt_image: It is broken." if row in failed else None,
            "model": model,
            "revision": revision,
        }
        for row, name in enumerate(names)
    ]
    held = [None if row in failed else vector for row, vector in enumerate(vectors)]
    if path.suffix == ".parquet":
        _parquet(path, rows, held, vectors.shape[1], group_rows)
        return path
    if path.suffix == ".npy":
        array = vectors.copy()
        array[list(failed)] = np.nan
        np.save(path, array)
    else:
        for row, vector in zip(rows, held, strict=True):
            row["embedding"] = None if vector is None else vector.tolist()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.with_suffix(".jsonl").write_text(lines)
    return path


def _parquet(
    path: Path, rows: list[dict[str, Any]], held: list[Any], dimensions: int, group_rows: int
) -> None:
    schema = pa.schema(
        {
            "source": pa.string(),
            "sha256": pa.string(),
            "width": pa.int32(),
            "height": pa.int32(),
            "embedding": pa.list_(pa.float32(), dimensions),
            "error": pa.string(),
            "model": pa.string(),
            "revision": pa.string(),
        }
    )
    whole = [{**row, "embedding": vector} for row, vector in zip(rows, held, strict=True)]
    table = pa.Table.from_pylist(whole, schema=schema)
    parquet.write_table(table, path, row_group_size=group_rows)
