"""Files of all kinds say the same, and what is wrong with one is a sentence."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from raylens.embeddings import files
from raylens.embeddings.files import EmbeddingsError
from raylens.embeddings.reading import read
from tests.embeddings.stored import KINDS, store

VECTORS = np.arange(60, dtype=np.float32).reshape(20, 3) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_files_say_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", 7)
    path = store(tmp_path / kind, VECTORS, failed=[2, 19], sizes=[(4, 5)] * 20, group_rows=6)
    embeddings = read(str(path))
    assert (len(embeddings), embeddings.dimensions) == (20, 3)
    assert (embeddings.model, embeddings.revision) == ("fake", "r1")
    blocks = list(embeddings.blocks())
    assert [block.first for block in blocks] == [0, 7, 14]
    streamed = np.concatenate([block.vectors for block in blocks])
    expected = VECTORS.copy()
    expected[[2, 19]] = np.nan
    np.testing.assert_array_equal(streamed, expected)
    np.testing.assert_array_equal(embeddings.vectors, expected)
    np.testing.assert_array_equal(
        np.concatenate([b.vectors for b in embeddings.blocks()]), expected
    )
    assert embeddings.good().tolist() == [row for row in range(20) if row not in (2, 19)]
    last, first, failed = embeddings.records([18, 0, 2])
    assert (last.source, first.source) == ("/photos/18.jpg", "/photos/0.jpg")
    assert (first.width, first.height, first.error) == (4, 5, None)
    assert failed.error == "corrupt_image: It is broken."


def test_a_folder_of_parts_is_read_as_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_ROWS", 7)
    names = [f"/photos/{number}.jpg" for number in range(20)]
    store(tmp_path / "part-000000.parquet", VECTORS[:9], names[:9], failed=[2])
    store(tmp_path / "part-000001.parquet", VECTORS[:0])
    store(tmp_path / "part-000002.parquet", VECTORS[9:], names[9:], group_rows=4)
    (tmp_path / "_leader").write_text("x")
    (tmp_path / ".a.parquet").write_text("x")
    embeddings = read(tmp_path)
    assert (len(embeddings), embeddings.dimensions, embeddings.model) == (20, 3, "fake")
    expected = VECTORS.copy()
    expected[2] = np.nan
    blocks = embeddings.blocks()
    embeddings.norms(next(blocks))
    np.testing.assert_array_equal(embeddings.vectors, expected)
    assert embeddings.good().tolist() == [row for row in range(20) if row != 2]
    rows = [19, 0, 9, 2]
    assert [r.source for r in embeddings.records(rows)] == [names[row] for row in rows]
    assert embeddings.records([2])[0].error == "corrupt_image: It is broken."


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="a folder without Parquet files"):
        read(tmp_path)
    store(tmp_path / "part-000000.parquet", VECTORS)
    store(tmp_path / "part-000001.parquet", VECTORS, model="other")
    with pytest.raises(EmbeddingsError, match=r"part-000001\.parquet has vectors of another model"):
        read(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_rows_can_be_read(kind: str, tmp_path: Path) -> None:
    embeddings = read(store(tmp_path / kind, np.zeros((0, 3))))
    assert len(embeddings) == 0
    assert list(embeddings.blocks()) == []
    assert len(embeddings.vectors) == 0
    assert embeddings.good().tolist() == []


def test_the_vectors_of_parquet_are_views(tmp_path: Path) -> None:
    (block,) = read(store(tmp_path / "x.parquet", VECTORS)).blocks()
    assert not block.vectors.flags.writeable
    assert not block.vectors.flags.owndata


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", b"", "does not end in"),
        ("x.parquet", b"not parquet", "cannot be used|no embeddings file|cannot read"),
        ("x.npy", b"", "no x.jsonl beside it"),
        ("x.jsonl", b"no json\n", "line 1 .* is not a row"),
        ("x.jsonl", b'{"embedding": [1]}\n', "line 1 .* is not a row"),
    ],
)
def test_what_is_no_embeddings_file_is_named(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EmbeddingsError, match=reason):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="there is no file"):
        read(tmp_path / "x.parquet")


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"source": ["a"]}), path)
    with pytest.raises(EmbeddingsError, match="has no column embedding, model"):
        read(path)
    table = pa.table({"source": ["a"], "model": ["m"], "embedding": [[1.0]]})
    parquet.write_table(table, path)
    with pytest.raises(EmbeddingsError, match="not a fixed-size list of float32"):
        read(path)


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.float32), np.zeros((2, 3)), np.array([{}], dtype=object)]
)
def test_another_array_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    path = store(tmp_path / "x.npy", VECTORS)
    np.save(path, array)
    with pytest.raises(EmbeddingsError, match=r"x\.npy"):
        read(path)


@pytest.mark.parametrize("kind", ["photos.parquet", "photos.npy"])
def test_a_file_that_was_cut_off_is_named(kind: str, tmp_path: Path) -> None:
    path = store(tmp_path / kind, np.ones((2000, 16)))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(EmbeddingsError, match=kind):
        read(path)


def test_rows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = store(tmp_path / "x.jsonl", VECTORS)
    with path.open("a") as file:
        file.write(json.dumps({"source": "a", "embedding": [1, 2]}) + "\n")
    with pytest.raises(EmbeddingsError, match="has 3 numbers"):
        list(read(path).blocks())
    path = store(tmp_path / "y.npy", VECTORS)
    path.with_suffix(".jsonl").write_text('{"source": "a", "model": "m"}\n')
    with pytest.raises(EmbeddingsError, match="20 rows are not the 1"):
        read(path).records([0])
