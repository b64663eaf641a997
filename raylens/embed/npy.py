"""Embeddings as one NumPy array, and beside it the other columns as lines of JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from raylens.embed.jsonl import objects
from raylens.embed.rows import NOT_OURS, FormatError, Identity, Row, as_object, from_object


class Npy:
    """`photos.npy`, (N, D) float32 with rows of NaN for what failed, and `photos.jsonl`."""

    def files(self, out: Path) -> list[Path]:
        return [out.with_suffix(".jsonl"), out]

    def check(self) -> None: ...

    def write(self, out: Path, rows: Iterator[Row], identity: Identity) -> None:
        failed = np.full(identity.dimensions, np.nan, np.float32)
        lines, array = self.files(out)
        with lines.open("w", encoding="utf-8") as text, array.open("wb") as vectors:
            # NumPy pads the header so that the number of rows can be filled in later.
            header = {"descr": "<f4", "fortran_order": False, "shape": (0, identity.dimensions)}
            npy.write_array_header_1_0(vectors, header)
            start, count = vectors.tell(), 0
            for row in rows:
                count += 1
                vectors.write((failed if row.embedding is None else row.embedding).tobytes())
                text.write(json.dumps(as_object(row, identity), ensure_ascii=False) + "\n")
            vectors.seek(0)
            npy.write_array_header_1_0(vectors, header | {"shape": (count, identity.dimensions)})
            if vectors.tell() != start:
                raise AssertionError("NumPy's header has grown over the first row")

    def identity(self, out: Path) -> Identity | None:
        first = next(objects(self.files(out)[0]), None)
        if first is None:
            return None
        return Identity(first["model"], first["revision"], _mapped(out).shape[1])

    def read(self, out: Path, *, vectors: bool = True) -> Iterator[Row]:
        array = _mapped(out)
        for number, entry in enumerate(objects(self.files(out)[0])):
            if number >= len(array):
                raise FormatError(f"{out} has fewer rows than its .jsonl: one of the two is old")
            wanted = vectors and entry["error"] is None
            yield from_object(entry, np.array(array[number]) if wanted else None)


def _mapped(out: Path) -> "np.memmap[tuple[int, int], np.dtype[np.float32]]":
    try:
        mapped = npy.open_memmap(out, "r")
        if mapped.ndim != 2 or mapped.dtype != np.float32:
            raise ValueError
    except ValueError:
        raise FormatError(NOT_OURS.format(out)) from None
    return mapped
