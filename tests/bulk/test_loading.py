"""A task's images are read and decoded within the service's limits; a bad one costs its own row."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from deployments.bulk.loading import LoadConfig, Loader, pixels_of
from deployments.bulk.places import Place
from deployments.bulk.sources import SourceError, find
from deployments.settings import Decode, Fetch, Limits, Settings
from deployments.wire import PixelSpec
from tests.conftest import Jpeg
from tests.pixels.pictures import saved

SPEC = PixelSpec(("shortest_edge", 32), 3, (32, 32))
SETTINGS = Settings(
    limits=Limits(max_image_bytes=200_000, max_image_pixels=1_000_000),
    decode=Decode(max_cpu_s=0.5),
    fetch=Fetch(timeout_s=1.0),
)


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader(LoadConfig(SETTINGS, SPEC))
    yield loader
    loader.close()


def test_bytes_become_pixels_in_their_rows(loader: Loader, jpeg: Jpeg) -> None:
    data = [jpeg(1), b"no image", jpeg(2, (64, 48)), None, jpeg(1)]
    table = loader.load(pa.table({"bytes": data, "id": range(5)}), "bytes")
    assert table["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert [e and e.partition(":")[0] for e in table["error"].to_pylist()] == [
        None,
        "unsupported_image",
        None,
        "unsupported_image",
        None,
    ]
    pixels = pixels_of(table, SPEC)
    assert pixels.shape == (3, 32, 32, 3)
    assert (pixels[0] == pixels[2]).all()
    assert (pixels[0] != pixels[1]).any()
    assert table["width"].to_pylist() == [320, None, 64, None, 320]
    assert table["sha256"][0] == table["sha256"][4]
    rest = pixels_of(table.slice(2), SPEC)
    assert (rest == pixels[1:]).all()


def test_widths_and_heights_are_those_of_the_file_in_every_format(loader: Loader) -> None:
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"]
    data = [saved(Image.new("RGB", (64, 40)), kind) for kind in kinds]
    table = loader.load(pa.table({"bytes": data}), "bytes")
    assert table["width"].to_pylist() == [64] * len(kinds)
    assert table["height"].to_pylist() == [40] * len(kinds)


def test_paths_are_read_where_they_are(loader: Loader, jpeg: Jpeg, tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(jpeg(1))
    (tmp_path / "large.jpg").write_bytes(bytes(300_000))
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["a b.jpg", "large.jpg", "pipe.jpg", "missing.jpg"]
    paths = [str(tmp_path / name) for name in names]
    table = loader.load(pa.table({"source": paths}), "source", Place.of(str(tmp_path)))
    assert [e and e.partition(":")[0] for e in table["error"].to_pylist()] == [
        None,
        "image_too_large",
        "path_not_found",
        "path_not_found",
    ]


def test_rows_name_files_only_below_the_root(
    loader: Loader, jpeg: Jpeg, tmp_path: Path, bucket: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "secret.jpg").write_bytes(jpeg(2))
    stored = Place.of(bucket.format("root/photos"))
    (stored / "a.jpg").write(jpeg(1))
    (Place.of(bucket.format("root")) / "secret.jpg").write(jpeg(2))
    for root, parent in ((tmp_path / "photos", tmp_path), (stored, "s3://photos/root")):
        names = [
            "a.jpg",
            f"{root}/a.jpg",
            f"{parent}/secret.jpg",
            "../secret.jpg",
            f"{root}/../secret.jpg",
            # Would reach any address, with the credentials of this machine.
            bucket.format("root/secret.jpg"),
            f"file://{tmp_path}/secret.jpg",
        ]
        place = root if isinstance(root, Place) else Place.of(str(root))
        errors = loader.load(pa.table({"u": names}), "u", place)["error"].to_pylist()
        assert errors[:2] == [None, None]
        assert errors[2:] == [f"path_not_found: There is no such file below {root}."] * 5
    table = loader.load(pa.table({"u": [f"{tmp_path}/secret.jpg"]}), "u")
    assert table["error"].to_pylist()[0].startswith("path_not_found: ")


def test_a_store_that_does_not_answer_is_told_from_a_file_that_is_not_there(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Place, "read", fail)
    table = loader.load(pa.table({"u": ["a.jpg"]}), "u", Place.of(str(tmp_path)))
    said = ["unreadable_file: The file cannot be read (the disk is on fire)."]
    assert table["error"].to_pylist() == said


def test_urls_are_fetched_under_the_fetch_policy(loader: Loader) -> None:
    table = loader.load(pa.table({"url": ["http://127.0.0.1/a.jpg", "http://[bad"]}), "url")
    codes = [e.partition(":")[0] for e in table["error"].to_pylist()]
    assert codes == ["url_forbidden", "bad_url"]


def test_a_bomb_costs_its_own_row(loader: Loader, jpeg: Jpeg) -> None:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "PNG")
    table = loader.load(pa.table({"bytes": [buffer.getvalue(), jpeg(1)]}), "bytes")
    assert table["error"].to_pylist()[0].startswith("image_too_large")
    assert table["error"][1].as_py() is None


def test_a_folder_is_listed_without_what_is_no_image_and_without_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "out/part-000000.parquet"):
        (tmp_path / name).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    place = Place.of(str(tmp_path))
    found = find(place, leave_out=place / "out")
    assert found.images == [str(tmp_path / "a.png"), str(tmp_path / "b.JPG")]
    assert (found.parquets, found.skipped) == ([], 2)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_bytes(b"")
    with pytest.raises(SourceError, match="no images, Parquet files or tars among its 1 files"):
        find(Place.of(str(tmp_path / "none")))
