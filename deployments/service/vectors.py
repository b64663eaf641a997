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
    """The model's raw (D,) vector as the caller wants it: truncated first, then normalised. An
    error if a number is beyond `largest`."""
    if isinstance(row, RaylensError):
        return row
    if not np.isfinite(row).all():
        return Internal("The model gave no finite vector for this item.")
    row = row[:dimensions]
    if normalize:
        return row / max(float(np.linalg.norm(row)), 1e-12)
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
    scores = (rows @ query).clip(-1, 1)
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


def as_matrix(rows: Sequence[Vector | RaylensError]) -> Vectors:
    """(N, D) float32 of rows that are all vectors."""
    return np.stack([row for row in rows if not isinstance(row, RaylensError)])
