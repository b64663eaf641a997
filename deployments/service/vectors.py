"""Computations on the model's vectors: normalising, truncating, cosines. numpy only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest, Internal, RaylensError
from deployments.wire import TextSpec, Vector, Vectors

Ranking = list[tuple[int, np.float32]]
"""Indices with their scores, best first."""


def finished(
    row: Vector | RaylensError, dimensions: int | None, normalize: bool, *, largest: float
) -> Vector | RaylensError:
    """The model's raw (D,) vector, or each of its (P, D), as the caller wants it: truncated first,
    then normalised. An error if a number is beyond `largest`."""
    if isinstance(row, RaylensError):
        return row
    if not np.isfinite(row).all():
        return Internal("The model gave no finite vector for this item.")
    row = row[..., :dimensions]
    if normalize:
        norms = np.linalg.norm(row, axis=-1, keepdims=True)
        unit: Vector = row / norms.clip(min=np.float32(1e-12))
        return unit
    if np.abs(row).max() > largest:
        return BadRequest(
            "This item's vector has numbers beyond the range of dtype; ask for float32, or leave "
            "normalize true."
        )
    return row


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float32]:
    """(N,) cosines of the rows of two (N, D) arrays of unit vectors."""
    result: NDArray[np.float32] = np.sum(a * b, axis=1).clip(-1, 1)
    return result


def ranking(query: Vector, rows: Vectors) -> Ranking:
    """Of (N, D) unit vectors, by their cosines to a (D,) unit vector."""
    return _best_first((rows @ query).clip(-1, 1))


def maxsim_ranking(query: Vector, documents: Sequence[Vector]) -> Ranking:
    """Of (P, D) unit vectors each, by late interaction with (L, D) of a query: the sum, over the
    query's vectors, of the largest cosine that a vector of the document has with it.

    ColBERT (Khattab and Zaharia 2020, section 3.3); `ColPaliProcessor.score_retrieval`.
    """
    scores = [(query @ document.T).max(axis=1).sum() for document in documents]
    return _best_first(np.array(scores, np.float32))


def _best_first(scores: NDArray[np.float32]) -> Ranking:
    return [(int(i), scores[i]) for i in np.argsort(-scores, kind="stable")]


def probabilities(cosines: Vectors, rule: TextSpec) -> Vectors:
    """(N, L) cosines of images with labels as probabilities, by the model's own rule.

    CLIP (Radford et al. 2021, section 3.1.2): softmax of the scaled cosines over the labels.
    SigLIP (Zhai et al. 2023, equation 1): sigmoid of each scaled cosine plus a bias.
    """
    logits = rule.logit_scale * cosines + rule.logit_bias
    if rule.score == "sigmoid":
        norm = np.logaddexp(0, logits)
    else:
        norm = np.logaddexp.reduce(logits, axis=1, keepdims=True)
    result: Vectors = np.exp(logits - norm)  # in log space, where nothing overflows
    return result


def as_rows(rows: Sequence[Vector | RaylensError]) -> list[Vector]:
    """Rows that are all vectors, or several vectors each."""
    return [row for row in rows if not isinstance(row, RaylensError)]


def as_matrix(rows: Sequence[Vector | RaylensError]) -> Vectors:
    """(N, D) float32 of rows that are all vectors, or (N, P, D) of rows that all are several; with
    zeros behind those that are fewer than others."""
    found = as_rows(rows)
    most = max(map(len, found))
    if found[0].ndim == 2:
        found = [np.pad(row, ((0, most - len(row)), (0, 0))) for row in found]
    return np.stack(found)
