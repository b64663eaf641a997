"""What `raylens embed` refuses, what fails, and how it says so."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deployments.errors import DeadlineExceeded
from deployments.wire import Pixels
from raylens.embed.formats import format_of
from raylens.embed.job import journal_path
from raylens.embed.journal import Journal
from tests.client.conftest import Serve
from tests.commands import ended, raylens
from tests.embed.conftest import Photos, embed, good, kept, paint
from tests.fakes import CARD, PATCHES, FakeModel


def test_several_vectors_for_each_image_are_refused(
    out: Path, serve: Serve, photos: Photos
) -> None:
    with serve(FakeModel(PATCHES)) as url:
        result = embed(out, url, *photos(1))
    assert ended(result) == 2
    assert "patches gives 4 vectors for each image, and the file keeps one" in result.stderr
    assert not out.exists()


def test_vectors_of_different_models_are_not_mixed(out: Path, serve: Serve, photos: Photos) -> None:
    paths = photos(3)
    with serve() as url:
        assert ended(embed(out, url, *paths)) == 0
    before = out.read_bytes()
    with serve(FakeModel(replace(CARD, revision="r2"))) as url:
        result = embed(out, url, *paths)
        assert ended(result) == 2
        assert result.stderr == (
            f"raylens: {out} holds vectors of fake (12 dimensions, revision r1), and the service "
            "has fake (12 dimensions, revision r2): the two must not be mixed. Choose another "
            "file, or --fresh to start anew\n"
        )
        assert out.read_bytes() == before
        assert ended(embed(out, url, *paths, "--fresh")) == 0
    assert len(good(out)) == 3


def test_a_model_that_changes_meanwhile_ends_the_job(
    out: Path, serve: Serve, photos: Photos
) -> None:
    class Changing(FakeModel):
        async def embed(self, *arguments: Any) -> Any:
            if len(self.stacks) > 3:
                assert self.loaded_card is not None
                self.loaded_card = replace(self.loaded_card, revision="r2")
            return await super().embed(*arguments)

    paths = photos(200)
    with serve(Changing()) as url:
        result = embed(out, url, paths[0].parent)
    assert ended(result) == 2
    assert "the service switched models during the run" in result.stderr
    assert not out.exists()


def test_options_reach_the_service(out: Path, serve: Serve, photos: Photos) -> None:
    small = FakeModel(replace(CARD, id="small", aliases=("s",), matryoshka=True))
    with serve(FakeModel(), small) as url:
        paths = photos(2)
        result = embed(out, url, *paths, "--model", "s", "--dimensions", "4", "--concurrency", "1")
        assert ended(result) == 0
        identity = format_of(out).identity(out)
        assert identity is not None
        assert (identity.model, identity.dimensions) == ("small", 4)
        result = embed(out, url, *paths, "--model", "other")
        assert (ended(result), result.stderr) == (
            2,
            "raylens: the service has no model other; it has fake, small\n",
        )
        result = embed(out.with_name("x.jsonl"), url, *paths, "--dimensions", "4")
        assert ended(result) == 1
        assert "dimensions" in result.stderr
    assert not journal_path(out.with_name("x.jsonl")).exists()


def test_one_image_that_the_service_cannot_bear_fails_alone(
    out: Path, serve: Serve, photos: Photos
) -> None:
    class Breaking(FakeModel):
        async def embed(self, stack: Pixels, *rest: Any) -> Any:
            if 5 in stack[:, 0, 0, 0]:
                raise RuntimeError("broken")
            return await super().embed(stack, *rest)

    paths = photos(30)
    with serve(Breaking()) as url:
        result = embed(out, url, *paths)
    assert ended(result) == 1
    assert result.stdout.startswith("29 embedded, 1 failed, ")
    error = kept(out)[str(paths[5])].error
    assert error is not None
    assert error.startswith("internal: ")


def test_what_failed_for_want_of_time_is_tried_once_more(
    out: Path, serve: Serve, photos: Photos
) -> None:
    class Late(FakeModel):
        late = frozenset({5, 9})

        async def embed(self, stack: Pixels, *rest: Any) -> Any:
            colours = set(stack[:, 0, 0, 0].tolist()) & self.late
            self.late = self.late - colours
            if colours:
                raise DeadlineExceeded("Too late.")
            return await super().embed(stack, *rest)

    paths = photos(10)
    with serve(Late()) as url:
        result = embed(out, url, *paths)
    assert ended(result) == 0
    assert result.stdout.startswith("10 embedded, ")
    assert len(good(out)) == 10


def test_an_unreadable_folder_is_told_and_exits_with_1(
    out: Path, url: str, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,), real = photos(1), os.scandir
    closed = path.parent / "closed"
    closed.mkdir()

    def refusing(folder: str) -> object:
        if folder == str(closed):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    result = embed(out, url, path.parent)
    assert ended(result) == 1
    assert result.stderr == f"{closed}: Permission denied\n"
    assert good(out) == {str(path)}


def test_a_fifo_and_a_device_are_failures(out: Path, url: str, photos: Photos) -> None:
    (path,) = photos(1)
    os.mkfifo(path.parent / "fifo.png")
    result = embed(out, url, path, path.parent / "fifo.png", "/dev/zero")
    assert ended(result) == 1
    assert result.stderr.count("path_not_readable: Not a regular file.") == 2
    assert good(out) == {str(path)}


def test_names_and_messages_do_not_command_the_terminal(
    out: Path, url: str, photos: Photos
) -> None:
    (path,) = photos(1)
    strange = path.with_name("a\x1b[2J\nb.png")
    strange.write_bytes(b"no image")
    result = embed(out, url, strange)
    assert "a\\x1b[2J\\nb.png: unsupported_image" in result.stderr
    for arguments in ([f"{strange}x"], [path, "--model", "m\x1b[2J"]):
        result = embed(out, url, *arguments)
        assert ended(result) == 2
        assert "\\x1b[2J" in result.stderr
        assert "\x1b" not in result.stderr


def test_a_list_that_cannot_be_read_is_named(
    out: Path, url: str, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = out.with_name("list.txt")
    listed.write_text(str(photos(1)[0]))
    real = Path.open

    def refusing(path: Path, *arguments: Any) -> Any:
        if path == listed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(Path, "open", refusing)
    result = embed(out, url, f"@{listed}")
    assert ended(result) == 2
    assert result.stderr == f"raylens: the list {listed} cannot be read: Permission denied\n"


@pytest.mark.parametrize("harm", ["cut", "flipped", "columns"])
def test_an_out_that_is_broken_is_a_sentence(
    out: Path, url: str, photos: Photos, harm: str
) -> None:
    paths = photos(30)
    assert ended(embed(out, url, *paths[:20])) == 0
    data = out.read_bytes()
    if harm == "cut":
        out.write_bytes(data[: len(data) // 2])
    elif harm == "flipped":
        out.write_bytes(data[:4] + bytes(byte ^ 255 for byte in data[4:2000]) + data[2000:])
    else:
        table = pq.read_table(out)
        pq.write_table(table.drop_columns(["mtime_ns"]), out)
    result = embed(out, url, *paths)
    assert ended(result) in (1, 2)
    assert str(out) in result.stderr
    assert "--fresh" in result.stderr


def test_two_at_once_do_not_write_the_same_file(out: Path, url: str, photos: Photos) -> None:
    journal = Journal(journal_path(out))
    result = embed(out, url, *photos(1))
    assert ended(result) == 1
    assert result.stderr == "raylens: another raylens embed writes the same file now\n"
    journal.close()
    assert ended(embed(out, url, *photos(1))) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "out.csv"], "out.csv must end in .parquet, .npy or .jsonl"),
        (["-o", "missing/out.npy"], "there is no folder missing"),
        (["-o", "out.npy", "--url", "nowhere"], "'nowhere' is not a URL of a service"),
        (["-o", "out.npy", "nothing.jpg"], "there is no file or folder nothing.jpg"),
    ],
)
def test_usage_errors_are_sentences(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "a.png", 1)
    result = raylens("embed", "a.png", *arguments)
    assert ended(result) == 2
    assert result.stderr.startswith(f"raylens: {sentence}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_npy_does_not_replace_anothers_jsonl(tmp_path: Path, url: str, photos: Photos) -> None:
    (tmp_path / "out.jsonl").write_text("precious\n")
    result = embed(tmp_path / "out.npy", url, *photos(1))
    assert ended(result) == 2
    assert f"{tmp_path}/out.jsonl is there already" in result.stderr
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


def test_a_full_disk_is_a_sentence_and_it_goes_on_later(
    out: Path, url: str, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = photos(30)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        result = embed(out, url, *paths)
    assert ended(result) == 1
    assert result.stderr == (
        f"raylens: {out} cannot be written: database or disk is full; afterwards, the same "
        "command goes on\n"
    )
    kind = type(format_of(out))

    def also_full(self: object, new: Path, *_: object) -> None:
        new.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", also_full)
        result = embed(out, url, *paths)
    assert ended(result) == 1
    assert "No space left on device" in result.stderr
    assert not list(out.parent.glob("*.new.*"))
    result = embed(out, url, *paths)
    assert result.stdout.startswith("0 embedded, 30 unchanged")
    assert len(good(out)) == 30
