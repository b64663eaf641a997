"""A Lance dataset gets each part in one commit, and is what Lance and LanceDB open."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import lancedb
import pyarrow as pa
import pytest

from deployments.bulk.lance import LanceDestination
from deployments.bulk.lead import DestinationError
from deployments.bulk.parts import is_done, keys_of, write_part
from deployments.bulk.places import Place
from tests.bulk.test_parts import MODEL, rows
from tests.servers import ROOT
from tests.until import until

# Embeds what is not done, in parts of ten, and says when there is nothing more.
WRITER = """
import sys
from deployments.bulk.lance import LanceDestination
from deployments.bulk.parts import is_done, keys_of, write_part
from deployments.bulk.places import Place
from tests.bulk.test_parts import MODEL, rows

target = LanceDestination(Place.of(sys.argv[1]), MODEL)
done = target.done()
for start in range(0, 400, 10):
    names = [f"{number}.jpg" for number in range(start, start + 10)]
    left = ~is_done(keys_of([None] * 10, names), done)
    names = [name for name, is_left in zip(names, left) if is_left]
    if names:
        target.commit(write_part(target.next_unfinished(), MODEL, [rows(*names)]))
target.close()
"""


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a dataset may be made; in the bucket, another one for each test."""
    if request.param == "folder":
        return Place.of(str(tmp_path / "my photos.lance"))
    return Place.of(request.getfixturevalue("bucket").format(f"{tmp_path.name}.lance"))


def write(target: LanceDestination, *sources: str, error: str | None = None) -> None:
    part = write_part(target.next_unfinished(), MODEL, [rows(*sources, error=error)])
    target.commit(part)


def read(target: LanceDestination) -> list[str]:
    options = {}
    if target.place.prefix:
        endpoint = dict(target.place.options)["endpoint_override"]
        options = {"aws_endpoint": f"http://{endpoint}", "allow_http": "true"}
    dataset = lance.dataset(str(target.place), storage_options=options)
    return sorted(dataset.to_table()["source"].to_pylist())


def test_a_part_is_there_once_it_is_committed(place: Place) -> None:
    target = LanceDestination(place, MODEL)
    part = write_part(target.next_unfinished(), MODEL, [rows("a", "b")])
    assert read(target) == []
    target.commit(part)
    write(target, "c", error="bad_url: x")
    target.close()
    assert read(target) == ["a", "b", "c"]
    assert not (place / "_unfinished").exists()


def test_what_a_killed_run_left_unfinished_does_not_count(place: Place) -> None:
    killed = LanceDestination(place, MODEL)
    write(killed, "a")
    write_part(killed.next_unfinished(), MODEL, [rows("b")])
    again = LanceDestination(place, MODEL)
    assert is_done(keys_of([None] * 2, ["a", "b"]), again.done()).tolist() == [True, False]
    write(again, "b")
    assert read(again) == ["a", "b"]


def test_a_run_that_was_taken_over_commits_nothing_more(place: Place) -> None:
    first = LanceDestination(place, MODEL)
    part = write_part(first.next_unfinished(), MODEL, [rows("a")])
    second = LanceDestination(place, MODEL)
    with pytest.raises(DestinationError):
        first.commit(part)
    assert read(second) == []


def test_what_failed_for_something_passing_is_tried_again(place: Place) -> None:
    target = LanceDestination(place, MODEL)
    write(target, "a")
    write(target, "b", error="fetch_timeout: slow")
    write(target, "c", error="bad_url: x")
    again = LanceDestination(place, MODEL)
    assert len(again.done()) == 2
    assert read(again) == ["a", "c"]
    write(again, "b")
    assert read(again) == ["a", "b", "c"]
    assert len(LanceDestination(place, MODEL).done()) == 3


def test_whenever_it_is_killed_each_source_is_there_once_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "photos.lance"

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", WRITER, str(folder)]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def versions() -> int:
        return len(list((folder / "_versions").glob("*.manifest")))

    for number in range(4):
        earlier, writer = versions(), start()
        # Its first version may be the one that deletes what is to be tried again.
        until(lambda: versions() > earlier + 1)  # noqa: B023
        time.sleep(0.005 * number)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    assert start().wait(60) == 0
    names = lance.dataset(str(folder)).to_table()["source"].to_pylist()
    assert sorted(names) == sorted(f"{number}.jpg" for number in range(400))
    assert not (folder / "_unfinished").exists()


def test_lancedb_opens_it_and_finds_what_is_alike(tmp_path: Path) -> None:
    target = LanceDestination(Place.of(str(tmp_path / "photos.lance")), MODEL)
    write(target, "a")
    write(target, "broken", error="corrupt_image: x")
    table = lancedb.connect(tmp_path).open_table("photos")
    (found,) = table.search([0.6, 0.8], query_type="vector").limit(5).to_list()
    assert (found["source"], found["error"]) == ("a", None)
    assert found["_distance"] == pytest.approx(0, abs=1e-6)
    (failed,) = table.search().where("error is not null").to_list()
    assert (failed["source"], failed["embedding"]) == ("broken", None)


def test_a_dataset_that_lancedb_has_compacted_is_written_on(tmp_path: Path) -> None:
    place = Place.of(str(tmp_path / "photos.lance"))
    target = LanceDestination(place, MODEL)
    write(target, "a")
    write(target, "b", error="bad_url: x")
    lancedb.connect(tmp_path).open_table("photos").optimize()
    write(target, "c")
    again = LanceDestination(place, MODEL)
    assert len(again.done()) == 3
    write(again, "d")
    assert read(again) == ["a", "b", "c", "d"]


def test_vectors_of_another_model_are_refused(place: Place) -> None:
    LanceDestination(place, MODEL)
    with pytest.raises(DestinationError, match="vectors of a/model"):
        LanceDestination(place, MODEL._replace(identity="bb"))


def test_a_run_that_was_killed_before_there_was_a_dataset_is_begun_anew(place: Place) -> None:
    for name in ("_leader", "_unfinished/x.parquet", "_versions/.tmp_1", "_transactions/0.txn"):
        (place / name).write(b"")
    target = LanceDestination(place, MODEL)
    write(target, "a")
    assert read(target) == ["a"]


def test_what_is_none_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos.lance"
    folder.mkdir()
    (folder / "part-000000.parquet").write_bytes(b"")
    with pytest.raises(DestinationError, match="no Lance dataset"):
        LanceDestination(Place.of(str(folder)), MODEL)
    assert [path.name for path in folder.iterdir()] == ["part-000000.parquet"]
    schema = pa.schema({"source": pa.string()})
    lancedb.connect(tmp_path).create_table("theirs", schema=schema)  # even without a row
    with pytest.raises(DestinationError, match="holds other files"):
        LanceDestination(Place.of(str(tmp_path / "theirs.lance")), MODEL)
    (tmp_path / "file.lance").write_bytes(b"")
    with pytest.raises(DestinationError, match="is a file"):
        LanceDestination(Place.of(str(tmp_path / "file.lance")), MODEL)


def test_what_lance_is_not_told_of_a_uri_is_refused() -> None:
    uri = "s3://key:secret@b/x.lance?region=eu-west-1&allow_bucket_creation=0"
    with pytest.raises(DestinationError, match="but not allow_bucket_creation, cred") as raised:
        LanceDestination(Place.of(uri), MODEL)
    assert "secret" not in str(raised.value)
