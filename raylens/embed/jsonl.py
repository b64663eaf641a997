"""Embeddings as lines of JSON: an object for each source, its embedding a list of numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raylens.embed.rows import (
    KEYS,
    NOT_OURS,
    FormatError,
    Identity,
    Row,
    as_object,
    from_object,
)


class JsonLines:
    """`photos.jsonl`."""

    def files(self, out: Path) -> list[Path]:
        return [out]

    def check(self) -> None: ...

    def write(self, out: Path, rows: Iterator[Row], identity: Identity) -> None:
        with out.open("w", encoding="utf-8") as file:
            for row in rows:
                entry = as_object(row, identity)
                entry["embedding"] = None if row.embedding is None else row.embedding.tolist()
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def identity(self, out: Path) -> Identity | None:
        for entry in objects(out, "embedding"):
            if entry["embedding"] is not None:
                return Identity(entry["model"], entry["revision"], len(entry["embedding"]))
        return None

    def read(self, out: Path, *, vectors: bool = True) -> Iterator[Row]:
        for entry in objects(out, "embedding"):
            values = entry["embedding"]
            wanted = vectors and values is not None
            yield from_object(entry, np.array(values, np.float32) if wanted else None)


def objects(path: Path, *more_keys: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that `raylens embed` wrote, with these keys too. Raises FormatError
    for another's."""
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
                if not KEYS.union(more_keys) <= entry.keys():
                    raise ValueError
            except (ValueError, AttributeError):
                raise FormatError(NOT_OURS.format(path)) from None
            yield entry
