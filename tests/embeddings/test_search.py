"""Search is exact, whatever the kind of file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from raylens.embeddings import files
from raylens.embeddings.reading import read
from raylens.embeddings.search import nearest
from tests.embeddings.stored import KINDS, store


def plain(vectors: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[int]:
    """All cosines in float64, sorted; of equals the first row."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    lengths[lengths == 0] = np.nan
    cosines = (wide * query).sum(axis=1) / lengths / np.linalg.norm(query)
    good = np.flatnonzero(np.isfinite(cosines))
    order = np.lexsort((good, -cosines[good].round(12)))
    return [int(row) for row in good[order][:top]]


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


@pytest.fixture(params=[7, 16_384], ids=["many blocks", "one block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("top", [1, 10, 1000])
@pytest.mark.parametrize("mapped", [False, True])
def test_the_nearest_are_those_of_a_plain_sort(path: Path, top: int, mapped: bool) -> None:
    rng = np.random.default_rng(top)
    vectors = rng.normal(size=(300, 12)).astype(np.float32)
    vectors[200:] = vectors[rng.integers(0, 100, 100)]  # ties
    vectors[50] *= 1000  # lengths do not matter
    vectors[60] = 0  # which has no direction
    failed = rng.choice(300, 40, replace=False).tolist()
    embeddings = read(store(path, vectors, failed=failed))
    if mapped:
        assert embeddings.vectors.shape == (300, 12)
    vectors[failed] = np.nan
    for query in rng.normal(size=(20, 12)).astype(np.float32):
        hits = nearest(embeddings, query, top)
        assert [hit.row for hit in hits] == plain(vectors, query, top)


def test_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    vector = np.random.default_rng(3).normal(size=(1, 37)).astype(np.float32)
    embeddings = read(store(tmp_path / "x.npy", vector.repeat(20_001, axis=0)))
    hits = nearest(embeddings, vector[0], 5)
    assert [hit.row for hit in hits] == [0, 1, 2, 3, 4]
    assert [hit.score for hit in hits] == pytest.approx([1.0] * 5)


def test_there_are_no_more_hits_than_good_rows(path: Path) -> None:
    embeddings = read(store(path, np.eye(4), failed=[1, 2]))
    assert [hit.row for hit in nearest(embeddings, np.eye(4)[3], 10)] == [3, 0]
    assert nearest(read(store(path, np.eye(4), failed=range(4))), np.ones(4), 3) == []


@pytest.mark.parametrize(
    ("query", "top", "reason"),
    [
        (np.ones(5), 3, "shape"),
        (np.ones((1, 4)), 3, "shape"),
        (np.zeros(4), 3, "direction"),
        (np.full(4, np.nan), 3, "direction"),
        (np.ones(4), 0, "at least 1"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(
    query: NDArray[np.float64], top: int, reason: str, tmp_path: Path
) -> None:
    embeddings = read(store(tmp_path / "x.npy", np.eye(4)))
    with pytest.raises(ValueError, match=reason):
        nearest(embeddings, query, top)
