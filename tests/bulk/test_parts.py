"""Parts are whole or not there, belong to one model, and are written by one run at a time."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from deployments.bulk.lead import DestinationError
from deployments.bulk.parts import (
    Destination,
    Model,
    is_done,
    keys_of,
    write_part,
)
from deployments.bulk.places import Place

MODEL = Model("a/model", "main", 2, "aa")


def rows(*sources: str, error: str | None = None) -> pa.Table:
    number = len(sources)
    vector = None if error else [0.6, 0.8]
    return pa.table(
        {
            "source": pa.array(sources, pa.string()),
            "sha256": pa.array(["00"] * number),
            "width": pa.array([4] * number, pa.int32()),
            "height": pa.array([3] * number, pa.int32()),
            "embedding": pa.array([vector] * number, pa.list_(pa.float32(), 2)),
            "error": pa.array([error] * number, pa.string()),
            "_stages": pa.array([json.dumps([{"stage": "model"}])] + [None] * (number - 1)),
        }
    )


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for results; in the bucket, another one for each test."""
    if request.param == "folder":
        return Place.of(str(tmp_path / "out"))
    return Place.of(request.getfixturevalue("bucket").format(tmp_path.name))


def read(place: Place) -> list[str]:
    table = parquet.read_table(place.path, filesystem=place.system)
    return sorted(table["source"].to_pylist())


def test_a_part_is_there_once_it_is_committed(place: Place) -> None:
    target = Destination(place, MODEL)
    part = write_part(target.next_unfinished(), MODEL, [rows("a", "b"), rows("c", error="x: y")])
    assert (part.rows, part.failed, part.stages) == (3, 1, [{"stage": "model"}] * 2)
    target.commit(write_part(target.next_unfinished(), MODEL, [rows("d")]))
    assert read(place) == ["d"]
    target.commit(part)
    target.close()
    assert read(place) == ["a", "b", "c", "d"]
    assert [path.rpartition("/")[2] for path in place.files()] == [
        "_leader",
        "part-000000.parquet",
        "part-000001.parquet",
    ]


def test_the_columns_are_those_of_every_embeddings_file(place: Place) -> None:
    target = Destination(place, MODEL)
    target.commit(write_part(target.next_unfinished(), MODEL, [rows("a", error="x: y")]))
    table = parquet.read_table(place.path, filesystem=place.system)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    (row,) = table.drop_columns(["origin"]).to_pylist()
    assert row == {
        "source": "a",
        "sha256": "00",
        "width": 4,
        "height": 3,
        "embedding": None,
        "error": "x: y",
        "model": "a/model",
        "revision": "main",
    }


def test_what_a_killed_run_left_unfinished_does_not_count(place: Place) -> None:
    killed = Destination(place, MODEL)
    killed.commit(write_part(killed.next_unfinished(), MODEL, [rows("a")]))
    write_part(killed.next_unfinished(), MODEL, [rows("b")])
    again = Destination(place, MODEL)
    done = again.done()
    assert is_done(keys_of([None] * 2, ["a", "b"]), done).tolist() == [True, False]
    assert not (place / "_unfinished").exists()
    again.commit(write_part(again.next_unfinished(), MODEL, [rows("b")]))
    assert read(place) == ["a", "b"]


def test_a_run_that_was_taken_over_commits_nothing_more(place: Place) -> None:
    first = Destination(place, MODEL)
    part = write_part(first.next_unfinished(), MODEL, [rows("a")])
    Destination(place, MODEL)
    with pytest.raises(DestinationError, match="taken this destination over"):
        first.commit(part)


def test_what_failed_for_something_passing_is_tried_again(place: Place) -> None:
    target = Destination(place, MODEL)
    tables = [rows("a", "b"), rows("c", error="fetch_timeout: slow"), rows("d", error="bad_url: x")]
    target.commit(write_part(target.next_unfinished(), MODEL, tables))
    table = rows("e", error="unreadable_file: x")
    target.commit(write_part(target.next_unfinished(), MODEL, [table]))
    again = Destination(place, MODEL)
    assert len(again.done()) == 3
    assert read(place) == ["a", "b", "d"]  # a reader never finds a source twice
    again.commit(write_part(again.next_unfinished(), MODEL, [rows("c", "e")]))
    assert read(place) == ["a", "b", "c", "d", "e"]
    assert len(Destination(place, MODEL).done()) == 5


def test_vectors_of_another_model_are_refused(place: Place) -> None:
    target = Destination(place, MODEL)
    target.commit(write_part(target.next_unfinished(), MODEL, [rows("a")]))
    with pytest.raises(DestinationError, match="vectors of a/model"):
        Destination(place, MODEL._replace(identity="bb"))


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "part-000000.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DestinationError, match="other files"):
        Destination(Place.of(str(tmp_path)), MODEL)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_readers_pass_over_may_be_there(place: Place) -> None:
    for name in (".DS_Store", "_SUCCESS", ".ipynb_checkpoints/a.parquet"):
        (place / name).write(b"x")
    target = Destination(place, MODEL)
    target.commit(write_part(target.next_unfinished(), MODEL, [rows("a")]))
    assert len(Destination(place, MODEL).done()) == 1


def test_parts_and_the_files_of_raylens_embed_are_told_apart(tmp_path: Path) -> None:
    from raylens.embed.parquet import Parquet
    from raylens.embed.rows import FormatError, Identity

    place = Place.of(str(tmp_path))
    target = Destination(place, MODEL)
    target.commit(write_part(target.next_unfinished(), MODEL, [rows("a")]))
    target.close()
    part = tmp_path / "part-000000.parquet"
    with pytest.raises(FormatError):
        Parquet().identity(part)
    Parquet().write(part, iter(()), Identity("a/model", "main", 2))
    with pytest.raises(DestinationError, match="other files"):
        Destination(place, MODEL)


def test_keys_are_found_among_those_that_are_done() -> None:
    done = np.sort(keys_of(["x#1", None], ["u", "a"]))
    assert is_done(keys_of([None, "x#1", "x#2"], ["a", "v", "u"]), done).tolist() == [
        True,
        True,
        False,
    ]
    assert not is_done(keys_of([None], ["a"]), done[:0]).any()
