"""Every format keeps every row, and others' tools read it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from raylens.embed.formats import FORMATS, format_of
from raylens.embed.rows import FormatError, Identity, Row

IDENTITY = Identity("a/model", "r1", 3)
ENDINGS = sorted(FORMATS)


def rows(count: int = 4) -> list[Row]:
    made = [
        Row(
            f"/photos/ä {number}.jpg",
            sha256=f"{number:064x}",
            width=640,
            height=480,
            size_bytes=5_000_000_000,
            mtime_ns=1_700_000_000_123_456_789,
            embedding=np.array([number, 0.1, -1e-9], np.float32),
        )
        for number in range(count)
    ]
    made[1] = Row("https://example.org/x", error="fetch_failed: It said 404.")
    return made


def same(left: Row, right: Row) -> bool:
    fields = [name for name in Row.__slots__ if name != "embedding"]
    if left.embedding is None or right.embedding is None:
        assert left.embedding is right.embedding
    else:
        assert left.embedding.dtype == right.embedding.dtype == np.float32
        np.testing.assert_array_equal(left.embedding, right.embedding)
    return all(getattr(left, name) == getattr(right, name) for name in fields)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [2, 4, 2500])
def test_what_is_written_is_read(tmp_path: Path, ending: str, count: int) -> None:
    out = tmp_path / f"out{ending}"
    kind = format_of(out)
    kind.write(out, iter(rows(count)), IDENTITY)
    assert kind.identity(out) == IDENTITY
    assert all(same(a, b) for a, b in zip(rows(count), kind.read(out), strict=True))
    facts = list(kind.read(out, vectors=False))
    assert [row.source for row in facts] == [row.source for row in rows(count)]
    assert all(row.embedding is None for row in facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in kind.files(out)
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_failures_only_is_one_too(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    failed = [Row("a", error="x: y"), Row("b", error="x: y")]
    format_of(out).write(out, iter(failed), IDENTITY)
    assert all(same(a, b) for a, b in zip(failed, format_of(out).read(out), strict=True))
    assert format_of(out).identity(out) in (None, IDENTITY)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"{}\n", b"[1]\n", b"PAR1", b"\x93NUMPY\x01\x00", b"\xff"])
def test_others_files_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    out = tmp_path / f"out{ending}"
    for path in format_of(out).files(out):
        path.write_bytes(content)
    with pytest.raises(FormatError, match="is not a file that raylens embed wrote"):
        list(format_of(out).read(out))


def test_another_ending_is_refused() -> None:
    with pytest.raises(FormatError, match=r"out\.csv must end in \.parquet, \.npy or \.jsonl"):
        format_of(Path("out.csv"))


def test_without_pyarrow_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FormatError, match=r"pip install 'raylens\[parquet\]'"):
        format_of(Path("out.parquet"))
    assert format_of(Path("out.jsonl"))


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    out = tmp_path / "out.parquet"
    format_of(out).write(out, iter(rows()), IDENTITY)
    return str(out)


def test_pyarrow_reads_parquet_with_its_types(parquet: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(parquet)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    names = "source sha256 width height embedding error model revision size_bytes mtime_ns"
    assert " ".join(table.column_names) == names
    assert [table.schema.field(name).type for name in ("width", "height")] == [pa.int32()] * 2
    assert table["embedding"].to_pylist()[1] is None
    assert table["model"].to_pylist() == ["a/model"] * 4


def test_pandas_reads_parquet(parquet: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(parquet)
    good = np.stack(frame[frame.error.isna()].embedding.to_list())
    assert good.shape == (3, 3)
    assert list(frame.source) == [row.source for row in rows()]


def test_polars_reads_parquet(parquet: str) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(parquet)
    assert frame["embedding"].dtype == polars.Array(polars.Float32, 3)
    assert frame.filter(polars.col("error").is_null())["embedding"].to_numpy().shape == (3, 3)


def test_duckdb_reads_parquet(parquet: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        query = "SELECT source, embedding[1] FROM read_parquet(?) WHERE error IS NULL"
        found = database.execute(query, [parquet]).fetchall()
    assert found == [(row.source, row.embedding[0]) for row in rows() if row.embedding is not None]


def test_numpy_reads_npy_and_json_its_lines(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    format_of(out).write(out, iter(rows()), IDENTITY)
    vectors = np.load(out, mmap_mode="r")
    assert (vectors.shape, vectors.dtype) == ((4, 3), np.float32)
    assert np.isnan(vectors[1]).all()
    assert not np.isnan(vectors[[0, 2, 3]]).any()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[1]["error"] == "fetch_failed: It said 404."
    assert "embedding" not in lines[0]


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_others_read_jsonl(tmp_path: Path, library: str) -> None:
    module = pytest.importorskip(library)
    out = tmp_path / "out.jsonl"
    format_of(out).write(out, iter(rows()), IDENTITY)
    if library == "duckdb":
        with module.connect() as database:
            count = database.execute(
                "SELECT count(embedding) FROM read_json(?)", [str(out)]
            ).fetchone()[0]
    else:
        frame = (
            module.read_json(out, lines=True) if library == "pandas" else module.read_ndjson(out)
        )
        count = int(frame["embedding"].count())
    assert count == 3
