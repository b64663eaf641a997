"""Folders, Parquet files, tars and buckets become one row for each image, on a real Ray."""

import io
import sys
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data
from pyarrow import fs, parquet
from ray.data import Dataset

from deployments.bulk import pipeline
from deployments.bulk.parts import Model
from deployments.bulk.places import Place
from raylens import bulk
from tests.bulk.cluster.conftest import CONFIG, Alone, assert_same, rows_in
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve  # the fixture
from tests.conftest import Jpeg

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray Data's own
]


def packed(*images: bytes) -> bytes:
    """A tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, data in enumerate(images):
            member = tarfile.TarInfo(f"{number:04d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_a_folder_is_embedded_once_and_what_is_added_later_then(
    jpeg: Jpeg, alone: Alone, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "photos" / "vectors"
    (photos / "more").mkdir(parents=True)
    for number in range(5):
        (photos / "more" / f"{number}.jpg").write_bytes(jpeg(number))
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (photos / "notes.txt").write_text("no image")
    summary = bulk.run(str(photos), str(out), config=CONFIG)
    assert (summary.rows, summary.failed, summary.before, summary.skipped) == (6, 1, 0, 1)
    assert {stage.name for stage in summary.stages} == {"read", "decode", "model"}
    rows = {row["source"]: row for row in rows_in(out)}
    assert len(rows) == 6
    for number in range(5):
        row = rows[str(photos / "more" / f"{number}.jpg")]
        assert_same(row, alone(jpeg(number)))
        assert (row["width"], row["height"]) == (320, 240)
    assert rows[str(photos / "broken.png")]["error"].startswith("corrupt_image: ")
    (photos / "new.jpg").write_bytes(jpeg(9))
    summary = bulk.run(str(photos), str(out), config=CONFIG)
    assert (summary.rows, summary.before) == (1, 6)
    assert len({row["source"] for row in rows_in(out)}) == len(rows_in(out)) == 7


def test_parquet_files_give_bytes_paths_and_urls(jpeg: Jpeg, alone: Alone, tmp_path: Path) -> None:
    data = [jpeg(number) for number in range(300)]
    source = tmp_path / "in"
    source.mkdir()
    table = pa.table({"id": range(300), "image": [{"bytes": d, "path": None} for d in data]})
    parquet.write_table(table, source / "a.parquet", row_group_size=200)
    out = tmp_path / "bytes"
    assert bulk.run(str(source), str(out), config=CONFIG).rows == 300
    rows = {row["source"]: row for row in rows_in(out)}
    assert len(rows) == 300
    assert_same(rows[f"{source}/a.parquet#250"], alone(data[250]))
    assert bulk.run(str(source), str(out), config=CONFIG).rows == 0

    (tmp_path / "1.jpg").write_bytes(data[1])
    named = [str(tmp_path / "1.jpg"), "http://127.0.0.1/x.jpg", None, str(tmp_path / "1.jpg")]
    parquet.write_table(pa.table({"where": named}), tmp_path / "names.parquet")
    out = tmp_path / "named"
    with pytest.raises(bulk.BulkError, match="--column, one of where"):
        bulk.run(str(tmp_path / "names.parquet"), str(out), config=CONFIG)
    for added in (4, 0):
        summary = bulk.run(str(tmp_path / "names.parquet"), str(out), config=CONFIG, column="where")
        assert summary.rows == added
    by_row = {row["origin"].rpartition("#")[2]: row for row in rows_in(out)}
    assert [by_row[str(n)]["source"] for n in range(4)] == [n or "" for n in named]
    assert_same(by_row["0"], alone(data[1]))
    assert_same(by_row["3"], alone(data[1]))
    assert by_row["1"]["error"].startswith("url_forbidden: ")
    assert by_row["2"]["error"].startswith("unsupported_image: ")


def test_a_bucket_with_images_and_tars_goes_into_a_bucket(
    bucket: str, jpeg: Jpeg, alone: Alone
) -> None:
    place = Place.of(bucket.format("photos/in"))
    assert isinstance(place.system, fs.S3FileSystem)
    (place / "one.jpg").write(jpeg(1))
    (place / "shard.tar").write(packed(jpeg(0), jpeg(1), jpeg(2)))
    source, out = bucket.format("photos/in"), bucket.format("photos/out")
    assert bulk.run(source, out, config=CONFIG).rows == 4
    assert bulk.run(source, out, config=CONFIG).rows == 0
    target = Place.of(out)
    table = parquet.read_table(target.path, filesystem=target.system)
    rows = {row["source"]: row for row in table.to_pylist()}
    prefix = "s3://photos/photos/in"
    assert set(rows) == {f"{prefix}/one.jpg"} | {f"{prefix}/shard.tar/000{n}.jpg" for n in range(3)}
    assert_same(rows[f"{prefix}/one.jpg"], alone(jpeg(1)))
    assert_same(rows[f"{prefix}/shard.tar/0002.jpg"], alone(jpeg(2)))


def test_a_service_embeds_and_what_cannot_be_read_is_tried_again(
    serve: Serve, jpeg: Jpeg, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.jpg").write_bytes(jpeg(1))
    whole = packed(jpeg(2), jpeg(3))
    (source / "bad.tar").write_bytes(whole[: whole.index(jpeg(3)) + 100])
    (source / "bad.parquet").write_bytes(b"no Parquet")
    parquet.write_table(pa.table({"image": [jpeg(4)]}), source / "bytes.parquet")
    parquet.write_table(pa.table({"path": ["a.jpg", "/etc/hosts"]}), source / "paths.parquet")
    with serve() as url:
        assert bulk.run(str(source), str(out), config={}, service=url).rows == 7
        good = {row["origin"] or row["source"] for row in rows_in(out) if not row["error"]}
        assert good == {
            f"{source}/a.jpg",
            f"{source}/bad.tar/0000.jpg",
            f"{source}/bytes.parquet#0",
            f"{source}/paths.parquet#0",
        }
        (source / "bad.tar").write_bytes(whole)
        assert bulk.run(str(source), str(out), config={}, service=url).rows == 2
    rows = rows_in(out)
    assert len({row["origin"] or row["source"] for row in rows}) == len(rows) == 7
    assert {row["source"]: row["error"].partition(":")[0] for row in rows if row["error"]} == {
        "/etc/hosts": "path_not_found",
        f"{source}/bad.parquet": "unreadable_file",
    }


def test_a_service_that_is_lost_is_told_from_other_errors(tmp_path: Path) -> None:
    def lose(_: pa.Table) -> pa.Table:
        raise ConnectionError("nothing answers")

    class Lost:
        model = Model("a/model", None, 2, "x")
        max_image_bytes = 1

        def embed(self, dataset: Dataset, column: str, root: Place | None) -> Dataset:
            return dataset.map_batches(lose, batch_format="pyarrow")

        def workers(self) -> dict[str, int]:
            return {}

    (tmp_path / "a.jpg").write_bytes(b"")
    places = Place.of(str(tmp_path)), Place.of(str(tmp_path / "out"))
    with pytest.raises(ConnectionError) as raised, bulk._explained():
        pipeline.run(*places, Lost(), counting=lambda _: nullcontext(lambda *_: None))
    assert str(raised.value) == "nothing answers"  # without the advice that Ray adds to it


def test_a_dataset_keeps_its_columns_and_gets_vectors(jpeg: Jpeg, alone: Alone) -> None:
    data = ray.data.from_items([{"id": n, "photo": jpeg(n)} for n in range(3)])
    embedded = bulk.embed(data, "photo", config=CONFIG).materialize()
    rows = sorted(embedded.take_all(), key=lambda row: row["id"])
    assert [row["photo"] for row in rows] == [jpeg(n) for n in range(3)]
    for number, row in enumerate(rows):
        assert_same(row, alone(jpeg(number)))
    assert not [name for name in rows[0] if name.startswith("_")]
    # In one process, the model would wait while images are loaded.
    assert "->MapBatches(_ModelActor)" not in embedded.stats()


def test_what_cannot_be_embedded_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(bulk.BulkError, match="there is no such file or folder") as raised:
        bulk.run(str(tmp_path / "missing"), str(tmp_path / "out"), config=CONFIG)
    assert raised.value.usage
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(bulk.BulkError, match="nosuchmodel"):
        bulk.run(
            str(tmp_path),
            str(tmp_path / "out"),
            config={"model": {"id": str(tmp_path / "nosuchmodel")}},
        )


def test_a_lance_dataset_without_lance_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lance", None)
    monkeypatch.delitem(sys.modules, "deployments.bulk.lance", raising=False)
    config = {"model": {"id": str(tmp_path / "nosuchmodel")}}
    with pytest.raises(bulk.BulkError, match=r"pip install 'raylens\[lance\]'"):
        bulk.run(str(tmp_path), str(tmp_path / "out.lance"), config=config)
    assert not (tmp_path / "out.lance").exists()
