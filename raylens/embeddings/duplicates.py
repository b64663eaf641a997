"""Groups of near-duplicates: rows linked by cosines of at least a threshold.

Up to EXACT_ROWS rows, every pair is compared. Beyond, an approximate index (usearch) proposes
pairs, and only those whose true cosine is high enough count: what it may do is miss some.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raylens.embeddings.files import Record, Vectors
from raylens.embeddings.reading import Embeddings

EXACT_ROWS = 100_000
_TILE_ROWS = 2048
_BATCH_ROWS = 4096
_FIRST_NEIGHBOURS, _MOST_NEIGHBOURS = 16, 1024
_SLACK = 1e-4  # what rounding can change in float32; within it, float64 decides
_INDEX_ERROR = 0.01  # how far the index's own distances, of 16-bit vectors, may be off

Rows = NDArray[np.int64]
Advance = Callable[[int, int], None]


class Member(NamedTuple):
    """A row of a group, its cosine with the group's first row, and what is known of it."""

    row: int
    similarity: float
    record: Record


class MissingIndexError(ImportError):
    """More rows than are compared pair by pair, and no usearch."""


def groups(
    embeddings: Embeddings,
    threshold: float,
    *,
    exact_rows: int | None = None,
    advance: Advance = lambda done, failed: None,
) -> list[list[Member]]:
    """Groups of two rows and more, the largest first.

    A group is what links connect: where a is like b and b is like c, all three are one group, even
    if a and c are less alike than the threshold. In each, the image with the most pixels stands
    first, and the others follow by their cosine with it. `advance` hears how many rows are done,
    of as many as the file has.
    """
    if not 0 < threshold <= 1:
        raise ValueError("the threshold must be above 0 and at most 1")
    good = embeddings.good()
    if not len(good):
        return []
    vectors = embeddings.vectors
    links = Links(len(embeddings))
    distinct, equal = _distinct(vectors, good, threshold)
    for a, b in equal:
        links.add(a, b)
    advance(len(embeddings) - len(distinct), 0)
    most = EXACT_ROWS if exact_rows is None else exact_rows
    propose = _every_pair if len(distinct) <= most else _neighbours
    for a, b in propose(vectors, distinct, threshold, advance):
        links.add(a, b)
    return _described(embeddings, links.groups())


class Links:
    """Connected components of rows: each row's label is the first row that it is linked to."""

    def __init__(self, rows: int) -> None:
        self._labels = np.arange(rows)

    def add(self, a: Rows, b: Rows) -> None:
        """Links a[i] with b[i], for all i."""
        labels = self._labels
        while True:
            left, right = labels[a], labels[b]
            apart = left != right
            if not apart.any():
                return
            a, b, left, right = a[apart], b[apart], left[apart], right[apart]
            np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
            while True:  # until each label is one of itself
                followed = labels[labels]
                if np.array_equal(followed, labels):
                    break
                labels[:] = followed

    def groups(self) -> list[Rows]:
        order = np.argsort(self._labels, kind="stable")
        _, starts = np.unique(self._labels[order], return_index=True)
        return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def _distinct(
    vectors: Vectors, good: Rows, threshold: float
) -> tuple[Rows, Iterator[tuple[Rows, Rows]]]:
    """The first row of each vector, and pairs of equal ones.

    Many equal rows would be as many pairs as their square, and would make an index of
    neighbours fall apart: each has more nearest ones than are looked at.
    """
    hashes = np.concatenate([_hashes(vectors[rows]) for rows in _batches(good)])
    _, firsts, places = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = firsts[places] != np.arange(len(good))
    rows, first = good[repeated], good[firsts[places]][repeated]
    pairs = zip(_batches(first), _batches(rows), strict=True)
    return good[np.sort(firsts)], (_alike(vectors, *pair, threshold) for pair in pairs)


def _every_pair(
    vectors: Vectors, rows: Rows, threshold: float, advance: Advance
) -> Iterator[tuple[Rows, Rows]]:
    """Tile by tile, on the diagonal and to its right."""
    unit = _unit(vectors[rows])
    for top in range(0, len(unit), _TILE_ROWS):
        upper = unit[top : top + _TILE_ROWS]
        for left in range(top, len(unit), _TILE_ROWS):
            cosines = upper @ unit[left : left + _TILE_ROWS].T
            a, b = np.nonzero(cosines >= threshold - _SLACK)
            sure = cosines[a, b] >= threshold + _SLACK
            a, b = rows[a + top], rows[b + left]
            yield a[sure], b[sure]
            yield _alike(vectors, a[~sure], b[~sure], threshold)
        advance(len(upper), 0)


def _neighbours(
    vectors: Vectors, rows: Rows, threshold: float, advance: Advance
) -> Iterator[tuple[Rows, Rows]]:
    """Each row's nearest ones, by an index of all."""
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingIndexError(
            f"more than {EXACT_ROWS:,} rows need usearch: pip install 'raylens[dedupe]'"
        ) from None
    # 16-bit vectors halve the index's memory; `_alike` computes the true cosines.
    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
    for batch in _batches(rows):
        index.add(batch, _unit(vectors[batch]))
        advance(len(batch) // 2, 0)
    for batch in _batches(rows):
        yield from _searched(index, vectors, batch, threshold)
        advance(len(batch) - len(batch) // 2, 0)


def _searched(
    index: Any, vectors: Vectors, rows: Rows, threshold: float
) -> Iterator[tuple[Rows, Rows]]:
    """The neighbours of some rows, and more of those whose farthest was still near enough."""
    count = _FIRST_NEIGHBOURS
    while len(rows) and count <= _MOST_NEIGHBOURS:
        found = index.search(_unit(vectors[rows]), count)
        matches = [found] if len(rows) == 1 else found  # usearch unpacks a batch of one
        near = [m.keys[m.distances <= 1 - threshold + _INDEX_ERROR].astype(int) for m in matches]
        lengths = np.array([len(keys) for keys in near])
        yield _alike(vectors, np.repeat(rows, lengths), np.concatenate(near), threshold)
        rows = rows[lengths == count]
        count *= 8


def _alike(vectors: Vectors, a: Rows, b: Rows, threshold: float) -> tuple[Rows, Rows]:
    """Those pairs whose cosine is at least the threshold."""
    keep = [
        _cosines(vectors[a[s : s + _BATCH_ROWS]], vectors[b[s : s + _BATCH_ROWS]]) >= threshold
        for s in range(0, len(a), _BATCH_ROWS)
    ]
    alike = np.concatenate(keep) if keep else np.zeros(0, bool)
    return a[alike], b[alike]


def _cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Of each row with the one beside it. One of equal vectors is 1, not a little less."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = (left * left).sum(axis=1) * (right * right).sum(axis=1)
    cosines: NDArray[np.float64] = (left * right).sum(axis=1) / np.sqrt(lengths)
    return cosines.round(12).clip(-1, 1)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _batches(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), _BATCH_ROWS):
        yield rows[start : start + _BATCH_ROWS]


def _hashes(vectors: Vectors) -> NDArray[np.uint64]:
    """Equal for equal vectors, and hardly ever for others."""
    words = np.ascontiguousarray(vectors).view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, words.shape[1], dtype=np.uint64)
    hashes: NDArray[np.uint64] = (words * (factors | 1)).sum(axis=1, dtype=np.uint64)
    return hashes


def _described(embeddings: Embeddings, found: list[Rows]) -> list[list[Member]]:
    everyone = np.concatenate(found or [np.zeros(0, np.int64)]).tolist()
    records = dict(zip(everyone, embeddings.records(everyone), strict=True))
    described = []
    for rows in found:
        pixels = [(records[r].width or 0) * (records[r].height or 0) for r in rows.tolist()]
        first = rows[int(np.argmax(pixels))]
        cosines = [
            _cosines(embeddings.vectors[part], embeddings.vectors[[first] * len(part)])
            for part in _batches(rows)
        ]
        pairs = zip(rows.tolist(), np.concatenate(cosines).tolist(), strict=True)
        members = [Member(row, cosine, records[row]) for row, cosine in pairs]
        members.sort(key=lambda m: (m.row != first, -m.similarity, m.row))
        described.append(members)
    return sorted(described, key=lambda members: (-len(members), members[0].row))
