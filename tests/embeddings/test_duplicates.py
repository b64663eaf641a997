"""Groups of near-duplicates, exact and by the index."""

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from raylens.embeddings.duplicates import Links, Member, groups
from raylens.embeddings.reading import read
from tests.embeddings.stored import store


def rows(found: list[list[Member]]) -> list[list[int]]:
    return [sorted(member.row for member in group) for group in found]


def clusters(sizes: list[int], noise: float, dimensions: int = 64) -> NDArray[np.float32]:
    """Copies of random vectors, each with a little noise, shuffled."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(sizes), dimensions))
    vectors = np.repeat(centres, sizes, axis=0)
    vectors += noise * rng.normal(size=vectors.shape)
    return rng.permutation(vectors).astype(np.float32)


def components(vectors: NDArray[np.float32], threshold: float) -> list[list[int]]:
    """By a plain search through all pairs."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    alike = unit @ unit.T >= threshold
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(vectors)):
        group: set[int] = set()
        todo = [start]
        while todo:
            row = todo.pop()
            if row not in seen:
                seen.add(row)
                group.add(row)
                todo += np.flatnonzero(alike[row]).tolist()
        if len(group) > 1:
            found.append(sorted(group))
    return sorted(found)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.12])
def test_exact_and_index_find_what_all_pairs_show(noise: float, tmp_path: Path) -> None:
    vectors = clusters([1] * 500 + [2] * 200 + [7] * 50 + [300], noise)
    embeddings = read(store(tmp_path / "x.npy", vectors))
    expected = components(vectors, 0.97)
    assert len(expected) > 200
    assert sorted(rows(groups(embeddings, 0.97))) == expected
    assert sorted(rows(groups(embeddings, 0.97, exact_rows=0))) == expected


@pytest.mark.parametrize("exact_rows", [0, 1000])
def test_a_group_of_many_equal_rows_stays_one(exact_rows: int, tmp_path: Path) -> None:
    vectors = np.ones((2000, 8), np.float32)
    vectors[::2] *= 2
    found = groups(read(store(tmp_path / "x.npy", vectors)), 1.0, exact_rows=exact_rows)
    assert rows(found) == [list(range(2000))]


def test_a_chain_is_one_group_and_says_how_unlike_its_ends_are(tmp_path: Path) -> None:
    angles = np.radians([0, 10, 20, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ((first, second, third),) = groups(read(store(tmp_path / "x.jsonl", vectors)), 0.97)
    assert (first.row, second.row, third.row) == (0, 1, 2)
    assert first.similarity == 1
    assert third.similarity == pytest.approx(np.cos(np.radians(20)))
    assert third.similarity < 0.97


def test_largest_groups_come_first_and_in_them_the_largest_image(tmp_path: Path) -> None:
    vectors = np.repeat(np.eye(3), [2, 3, 1], axis=0)
    sizes = [(10, 10), (20, 20), (5, 5), (90, 90), (80, 80), (1, 1)]
    found = groups(read(store(tmp_path / "x.parquet", vectors, sizes=sizes)), 0.97)
    assert [[member.row for member in group] for group in found] == [[3, 2, 4], [1, 0]]


def test_rows_that_failed_are_in_no_group(tmp_path: Path) -> None:
    path = store(tmp_path / "x.parquet", np.ones((5, 4)), failed=[0, 3])
    assert rows(groups(read(path), 0.97)) == [[1, 2, 4]]
    assert groups(read(store(path, np.ones((5, 4)), failed=range(5))), 0.97) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_is_a_cosine(threshold: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threshold"):
        groups(read(store(tmp_path / "x.npy", np.eye(2))), threshold)


def test_progress_ends_at_the_number_of_rows(tmp_path: Path) -> None:
    vectors = clusters([1] * 10 + [2] * 5, 0.01)
    embeddings = read(store(tmp_path / "x.npy", vectors, failed=[3]))
    for exact_rows in (0, 100):
        steps: list[int] = []
        groups(embeddings, 0.97, exact_rows=exact_rows, advance=lambda n, _: steps.append(n))  # noqa: B023
        assert sum(steps) == len(vectors)


def test_a_long_chain_is_linked_quickly() -> None:
    links = Links(200_000)
    order = np.random.default_rng(0).permutation(200_000)
    began = time.monotonic()
    links.add(order[:-1], order[1:])
    assert time.monotonic() - began < 30
    assert [len(group) for group in links.groups()] == [200_000]
