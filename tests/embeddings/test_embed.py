"""`raylens embed`, run after run, with a fake model behind the real HTTP layer."""

import hashlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deployments.errors import DeadlineExceeded
from deployments.wire import Pixels
from raylens import Client
from raylens.cli import app
from raylens.embeddings.formats import FORMATS, format_of
from raylens.embeddings.job import journal_path
from raylens.embeddings.journal import Journal
from raylens.embeddings.rows import Row
from tests.client.conftest import Serve
from tests.commands import ENV, ended, raylens
from tests.embeddings.conftest import Photos, paint, vectors
from tests.fakes import CARD, FakeModel

ENDINGS = sorted(FORMATS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


def embed(out: Path, url: str, *arguments: object) -> Any:
    return raylens("embed", *map(str, arguments), "-o", str(out), "--url", url)


def kept(out: Path) -> dict[str, Row]:
    """The rows by source, each of which must be there once, and no journal."""
    rows = list(format_of(out).read(out))
    by_source = {row.source: row for row in rows}
    assert len(by_source) == len(rows)
    assert not list(out.parent.glob(f"{out.name}.journal*"))
    assert not list(out.parent.glob("*.new.*"))
    return by_source


def good(out: Path) -> set[str]:
    return {source for source, row in kept(out).items() if row.embedding is not None}


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_have_the_vectors_and_what_the_files_are(
    tmp_path: Path, url: str, photos: Photos, ending: str
) -> None:
    out, paths = tmp_path / f"out{ending}", photos(300)
    result = embed(out, url, tmp_path / "photos")
    assert ended(result) == 0
    assert result.stdout.startswith("300 embedded, ")
    assert result.stdout.endswith(f"/s -> {out}\n")
    rows = kept(out)
    assert list(rows) == [str(path) for path in paths]
    with Client(url) as client:
        alone = client.embed(paths)
    np.testing.assert_allclose(vectors(list(rows.values())), alone, atol=1e-6)
    row, path = rows[str(paths[7])], paths[7]
    assert (row.width, row.height, row.error) == (8, 6, None)
    assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row.size_bytes, row.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


@pytest.mark.parametrize("ending", ENDINGS)
def test_failed_items_are_rows_and_tried_again(
    tmp_path: Path, url: str, photos: Photos, ending: str
) -> None:
    out, paths = tmp_path / f"out{ending}", photos(20)
    for number, content in ((3, b"no image"), (4, b""), (5, paths[5].read_bytes()[:40])):
        paths[number].write_bytes(content)
    (tmp_path / "photos/loop.png").symlink_to("loop.png")
    result = embed(out, url, tmp_path / "photos", "ftp.example.org", paths[3])
    assert ended(result) == 2  # the last but one is a slip
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/photos\n{tmp_path}/missing.png\n")
    result = embed(out, url, f"@{listed}", tmp_path / "photos/loop.png")
    assert ended(result) == 1
    assert result.stdout.startswith("17 embedded, 5 failed, ")
    assert f"{paths[3]}: unsupported_image: " in result.stderr
    errors = {s: row.error.partition(":")[0] for s, row in kept(out).items() if row.error}
    assert errors == {
        str(paths[3]): "unsupported_image",
        str(paths[4]): "corrupt_image",
        str(paths[5]): "corrupt_image",
        str(tmp_path / "missing.png"): "path_not_found",
        str(tmp_path / "photos/loop.png"): "path_not_readable",
    }
    assert kept(out)[str(paths[5])].sha256
    for number in (3, 4, 5):
        paint(paths[number], number)
    result = embed(out, url, tmp_path / "photos")
    assert ended(result) == 0
    assert result.stdout.startswith("3 embedded, 17 unchanged, ")
    assert len(good(out)) == 20


def test_only_new_and_changed_files_are_embedded_again(
    out: Path, serve: Serve, photos: Photos
) -> None:
    paths, model = photos(10), FakeModel()
    with serve(model) as url:
        folder = paths[0].parent
        assert ended(embed(out, url, folder)) == 0
        before, stacks = out.stat(), len(model.stacks)
        result = embed(out, url, folder)
        assert result.stdout == f"0 embedded, 10 unchanged -> {out}\n"
        assert (out.stat().st_mtime_ns, len(model.stacks)) == (before.st_mtime_ns, stacks)
        photos(1, first=10)
        paint(paths[2], 999)
        os.utime(paths[2], ns=(1, 2))
        os.utime(paths[3], ns=(1, 2))
        result = embed(out, url, folder)
        assert result.stdout.startswith("3 embedded, 8 unchanged, ")
        rows = kept(out)
        assert len(rows) == 11
        assert rows[str(paths[2])].mtime_ns == 2
        with Client(url) as client:
            alone = client.embed([paths[2]])
        np.testing.assert_allclose(vectors([rows[str(paths[2])]]), alone, atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_of_files_that_are_gone_go_only_with_their_folder(
    tmp_path: Path, url: str, photos: Photos, ending: str
) -> None:
    out, paths = tmp_path / f"out{ending}", photos(5)
    other = paint(tmp_path / "other/x.png", 77)
    assert ended(embed(out, url, tmp_path / "photos", other)) == 0
    paths[1].unlink()
    other.unlink()
    result = embed(out, url, tmp_path / "photos")
    assert ended(result) == 0
    assert result.stdout == f"0 embedded, 4 unchanged, 1 gone -> {out}\n"
    assert good(out) == {str(path) for path in [*paths, other] if path != paths[1]}
    # An empty folder is rather a disk that is not mounted.
    for path in paths[2:]:
        path.unlink()
    paths[0].unlink()
    result = embed(out, url, tmp_path / "photos")
    assert (ended(result), result.stderr) == (2, "raylens: there are no images\n")
    assert len(good(out)) == 5


def test_what_other_runs_embedded_stays(out: Path, url: str, photos: Photos) -> None:
    paths = photos(6)
    assert ended(embed(out, url, *paths[:3])) == 0
    assert ended(embed(out, url, *paths[2:])) == 0
    assert list(kept(out)) == [str(path) for path in paths]


def test_fresh_starts_anew(out: Path, url: str, photos: Photos) -> None:
    paths = photos(6)
    assert ended(embed(out, url, *paths)) == 0
    result = embed(out, url, *paths[:2], "--fresh")
    assert result.stdout.startswith("2 embedded, ")
    assert good(out) == {str(path) for path in paths[:2]}
    out.write_bytes(b"anything")
    result = embed(out, url, *paths)
    assert ended(result) == 2
    assert "is not a file that raylens embed wrote" in result.stderr
    assert ended(embed(out, url, *paths, "--fresh")) == 0
    assert len(good(out)) == 6


def test_a_source_that_is_named_twice_is_embedded_once(
    out: Path, url: str, photos: Photos, tmp_path: Path
) -> None:
    paths = photos(3)
    folder = tmp_path / "photos"
    result = embed(out, url, folder, paths[0], f"{folder}/*.png", f"{folder}/../photos")
    assert result.stdout.startswith("3 embedded, ")
    assert len(good(out)) == 3


def test_stdin_and_urls_are_sources(out: Path, url: str, photos: Photos) -> None:
    paths = photos(2)
    refused = "http://127.0.0.1:1/x.png"
    result = CliRunner().invoke(
        app,
        ["embed", "-", "-o", str(out), "--url", url],
        input=f"{paths[0]}\n{refused}\n{paths[1]}\n",
        env=ENV,
    )
    assert ended(result) == 1
    rows = kept(out)
    assert list(rows) == [str(paths[0]), refused, str(paths[1])]
    row = rows[refused]
    assert row.error is not None
    assert row.error.startswith("bad_url: ")
    assert (row.sha256, row.width, row.size_bytes) == (None, None, None)


def test_a_name_that_is_no_text_is_escaped(out: Path, url: str, photos: Photos) -> None:
    (path,) = photos(1)
    strange = os.fsdecode(os.fsencode(path.parent) + b"/\xff.png")
    path.rename(strange)
    assert ended(embed(out, url, path.parent)) == 0
    assert good(out) == {f"{path.parent}/\\xff.png"}
    assert "1 unchanged" in embed(out, url, path.parent).stdout


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
    assert "the service got another model meanwhile" in result.stderr
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
        (["-o", "out.npy", "--url", "nowhere"], "'nowhere' is no URL of a service"),
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
