"""Exact search: the rows whose vectors have the highest cosines with a query."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylens.embeddings.reading import Embeddings

_EXACT_ROWS = 4096


class Hit(NamedTuple):
    """A row and its cosine with the query."""

    row: int
    score: float


def nearest(embeddings: Embeddings, query: ArrayLike, top: int = 10) -> list[Hit]:
    """At most `top` rows, best first, and of equals the first. Rows that failed are no hits.

    A pass in float32 finds the candidates, and float64 decides among them, so that neither
    rounding nor where a block of rows ends has a say. Raises ValueError for a query that is no
    vector of the embeddings' dimensions or has no direction.
    """
    target = np.asarray(query, dtype=np.float64)
    if not embeddings.dimensions:  # all rows failed
        return []
    if target.shape != (embeddings.dimensions,):
        raise ValueError(
            f"the query has the shape {target.shape}, the embeddings ({embeddings.dimensions},)"
        )
    if top < 1:
        raise ValueError("top must be at least 1")
    length = np.linalg.norm(target)
    if not np.isfinite(length) or length == 0:
        raise ValueError("the query is no vector with a direction")
    target /= length
    single = target.astype(np.float32)
    # Twice what rounding can change in a product of unit vectors (Higham, section 3.1).
    slack = 2 * len(target) * float(np.finfo(np.float32).eps)
    best_rows, best_scores = np.zeros(0, np.int64), np.zeros(0)
    for block in embeddings.blocks():
        scores = block.vectors @ single
        scores /= embeddings.norms(block)
        least = best_scores[-1] if len(best_scores) == top else -2.0
        candidates = np.flatnonzero(scores >= least - slack)  # no NaN is
        if len(candidates) > 2 * top:
            here = scores[candidates]
            candidates = candidates[here >= np.partition(here, -top)[-top] - slack]
        if not len(candidates):
            continue
        rows = np.concatenate((best_rows, candidates + block.first))
        exact = np.concatenate((best_scores, _cosines(block.vectors, candidates, target)))
        order = np.lexsort((rows, -exact))[:top]
        best_rows, best_scores = rows[order], exact[order]
    return [Hit(int(row), float(s)) for row, s in zip(best_rows, best_scores, strict=True)]


def _cosines(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """In float64, and each by itself: equal vectors get equal cosines, unlike from BLAS."""
    parts = []
    for start in range(0, len(rows), _EXACT_ROWS):
        chosen = vectors[rows[start : start + _EXACT_ROWS]].astype(np.float64)
        norms = np.sqrt((chosen * chosen).sum(axis=1))
        parts.append((chosen * target).sum(axis=1) / norms)
    return np.concatenate(parts).clip(-1, 1)
