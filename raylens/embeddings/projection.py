"""Vectors to points of a plane, by UMAP where it is installed and wanted, or by PCA."""

import warnings
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raylens.embeddings.files import Vectors

Method = Literal["umap", "pca"]
NEEDS_UMAP = "UMAP needs umap-learn: pip install 'raylens[map]'"

_NEIGHBOURS = 15
_SEED = 0  # the same file gives the same map


def best_method(rows: int) -> Method:
    """UMAP, unless it is not installed or there are too few rows for its neighbourhoods."""
    return "umap" if has_umap() and rows > 2 * _NEIGHBOURS else "pca"


def has_umap() -> bool:
    return find_spec("umap") is not None


def project(vectors: Vectors, method: Method) -> NDArray[np.float32]:
    """(N, D) without NaNs to (N, 2), from 0 to 1 in the wider direction. Raises ImportError
    without umap-learn."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    points = _umap(unit) if method == "umap" else _pca(unit)
    points -= points.min(axis=0)
    width = float(points.max())
    return (points / width if width > 0 else points).astype(np.float32)


def _pca(vectors: Vectors) -> NDArray[np.float32]:
    centred = vectors - vectors.mean(axis=0)
    # The eigenvectors of the (D, D) covariance are the right singular vectors of the (N, D) array.
    _, axes = np.linalg.eigh(centred.T @ centred)
    points: NDArray[np.float32] = centred @ axes[:, :-3:-1]
    missing = 2 - points.shape[1]  # of vectors of one number
    return np.pad(points, ((0, 0), (0, missing)))


def _umap(vectors: Vectors) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what its own dependencies will change
        try:
            from umap import UMAP
        except ImportError:
            raise ImportError(NEEDS_UMAP) from None
        neighbours = min(_NEIGHBOURS, len(vectors) - 1)
        # With a seed it uses one thread; without, several and another map each time.
        reducer = UMAP(n_neighbors=neighbours, metric="cosine", random_state=_SEED, n_jobs=1)
        points: NDArray[np.float32] = reducer.fit_transform(vectors)
    return points
