"""`raylens embed`, run after run, with a fake model behind the real HTTP layer."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from raylens import Client
from raylens.cli import app
from raylens.embed.formats import FORMATS
from tests.client.conftest import Serve
from tests.commands import ENV, ended
from tests.embed.conftest import Photos, embed, good, kept, paint, vectors
from tests.fakes import FakeModel

ENDINGS = sorted(FORMATS)


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
    for _ in range(3):
        result = embed(out, url, path.parent)
        assert result.stdout == f"0 embedded, 1 unchanged -> {out}\n"
        assert good(out) == {f"{path.parent}/\\xff.png"}
    os.unlink(strange)  # noqa: PTH108  (it is no Path)
    photos(1)
    assert "1 gone" in embed(out, url, path.parent).stdout


def test_a_file_that_is_called_like_the_new_out_stays(out: Path, url: str, photos: Photos) -> None:
    theirs = out.with_name("out.new.parquet")
    theirs.write_text("precious")
    assert ended(embed(out, url, *photos(1))) == 0
    assert theirs.read_text() == "precious"


def test_stdin_is_left_alone_unless_it_is_named(
    out: Path, url: str, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*sources: object) -> int:
        with pytest.raises(SystemExit) as ended:
            app(["embed", *map(str, sources), "-o", str(out), "--url", url])
        return int(str(ended.value.code))

    monkeypatch.setattr(sys, "stdin", None)  # as where it was closed
    assert run(*photos(1)) == 0
    assert run("-") == 2
