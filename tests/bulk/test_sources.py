"""Parquet files and tars become rows, also what cannot be read of them."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from deployments.bulk import sources
from deployments.bulk.parts import Keys, keys_of
from deployments.bulk.places import Place
from deployments.bulk.sources import (
    IMAGE_ENDINGS,
    RowGroup,
    SourceError,
    parquet_rows,
    row_groups,
    tar_rows,
)
from raylens.embed.sources import ENDINGS

NOTHING: Keys = keys_of([], [])


def packed(*members: tuple[str, bytes]) -> bytes:
    """A tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpacked(path: Path, done: Keys = NOTHING, *, max_bytes: int = 10_000) -> list[dict[str, Any]]:
    place = Place.of(str(path.parent))
    tables = list(tar_rows(place, str(path), done, max_bytes=max_bytes))
    return [row for table in tables for row in table.to_pylist()]


def rows_of(place: Place, groups: list[RowGroup]) -> list[dict[str, Any]]:
    tables = [table for group in groups for table in parquet_rows(place, group, NOTHING)]
    return [row for table in tables for row in table.to_pylist()]


def test_a_tar_gives_its_images_that_are_not_done(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed(("0.jpg", b"0"), ("0.json", b"{}"), ("1.jpg", b"1")))
    (row,) = unpacked(path, keys_of([None], [f"{path}/0.jpg"]))
    assert row == {"source": f"{path}/1.jpg", "origin": None, "bytes": b"1", "_unread": None}


@pytest.mark.parametrize(("kept", "whole"), [(1800, 1), (1300, 1), (300, 0), (0, 0)])
def test_a_tar_that_ends_too_early_gives_what_it_has_and_an_error(
    kept: int, whole: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed(("0.jpg", b"0"), ("1.jpg", bytes(1000)))[:kept])
    *good, bad = unpacked(path)
    assert len(good) == whole
    assert bad["source"] == str(path)
    assert bad["bytes"] is None
    assert bad["_unread"].startswith("unreadable_file: ")


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    data = packed(("0.jpg", b"0"), ("1.jpg", b"1"))
    path.write_bytes(data[:1024] + b"\xff" * 512 + data[1536:])
    good, bad = unpacked(path)
    assert good["source"] == f"{path}/0.jpg"
    assert bad["_unread"].startswith("unreadable_file: ")


def test_a_tar_may_have_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed(("caf\udce9.jpg", b"0"), ("1.jpg", b"1")))
    assert [row["source"] for row in unpacked(path)] == [f"{path}/caf\\xe9.jpg", f"{path}/1.jpg"]


def test_a_member_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed(("0.jpg", bytes(2000)), ("1.jpg", bytes(900)), ("2.jpg", bytes(900))))
    large, *others = unpacked(path, max_bytes=1000)
    assert large["bytes"] is None
    assert (
        large["_unread"] == "image_too_large: The image has 2000 bytes; at most 1000 are allowed."
    )
    assert [len(row["bytes"]) for row in others] == [900, 900]
    monkeypatch.setattr(sources, "BYTES_AT_A_TIME", 500)
    tables = list(tar_rows(Place.of(str(tmp_path)), str(path), NOTHING, max_bytes=1000))
    assert [len(table) for table in tables] == [2, 1, 0]


def test_each_parquet_file_has_a_column_of_its_own(tmp_path: Path) -> None:
    struct = pa.array([{"bytes": b"x", "path": "y"}])
    parquet.write_table(pa.table({"n": [1], "image": struct}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"url": ["u", None]}), tmp_path / "b.parquet")
    parquet.write_table(pa.table({"n": [1]}), tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"no Parquet")
    place = Place.of(str(tmp_path))
    paths = sources.find(place).parquets
    rows = rows_of(place, row_groups(place, paths, None))
    assert [row["source"] for row in rows] == [
        f"{tmp_path}/a.parquet#0",
        "u",
        "",
        f"{tmp_path}/c.parquet",
        f"{tmp_path}/d.parquet",
    ]
    assert rows[0]["bytes"] == b"x"
    assert [bool(row["_unread"]) for row in rows] == [False, False, False, True, True]
    with pytest.raises(SourceError, match="one of n, image"):
        row_groups(place, paths[:1], "n")


def test_a_row_group_that_cannot_be_read_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = [bytes([n]) * 1000 for n in range(20)]
    table = pa.table({"bytes": data})
    parquet.write_table(table, path, row_group_size=10, compression="snappy", use_dictionary=False)
    place = Place.of(str(tmp_path))
    groups = row_groups(place, [str(path)], None)
    column = parquet.read_metadata(path).row_group(0).column(0)
    broken = bytearray(path.read_bytes())
    start = column.data_page_offset
    broken[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(broken)
    bad, *good = rows_of(place, groups)
    assert (bad["source"], bad["origin"]) == (f"{path}#0", f"{path}#0")
    assert bad["_unread"].startswith("unreadable_file: ")
    assert bad["_unread"].endswith("(rows 0 to 9)")
    assert [row["bytes"] for row in good] == data[10:]


def test_names_in_parquet_that_are_not_utf_8_are_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    names = pa.array([b"a.jpg", b"caf\xe9.jpg"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"path": names}), path)
    place = Place.of(str(tmp_path))
    rows = rows_of(place, row_groups(place, [str(path)], None))
    assert [row["source"] for row in rows] == ["a.jpg", "caf\\xe9.jpg"]


def test_images_have_the_same_endings_for_bulk_and_for_embed() -> None:
    """Each has its own list: the two packages do not know each other."""
    assert IMAGE_ENDINGS == ENDINGS
