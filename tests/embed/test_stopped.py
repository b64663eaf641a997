"""`raylens embed` is stopped, killed and left alone by the service, and goes on."""

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import Unavailable
from raylens import Client
from raylens.embed.formats import format_of
from raylens.embed.job import journal_path
from raylens.embed.journal import Journal
from tests.client.conftest import Serve
from tests.commands import ENV, raylens
from tests.embed.conftest import Photos, vectors
from tests.fakes import FakeModel
from tests.servers import ROOT
from tests.until import until

PROGRAM = [sys.executable, "-c", "from raylens.cli import main; main()"]


class Slow(FakeModel):
    """A model that takes some time, so that there is some to be killed in."""

    async def embed(self, stack: Any, *rest: Any) -> Any:
        await asyncio.sleep(0.1 * len(stack))
        return await super().embed(stack, *rest)


def start(out: Path, url: str, *arguments: object) -> "subprocess.Popen[str]":
    names = [str(argument) for argument in arguments]
    kept = {name: value for name, value in os.environ.items() if name not in ENV}
    return subprocess.Popen(
        [*PROGRAM, "embed", *names, "-o", str(out), "--url", url],
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes its background jobs ignore it, and so these tests if they are one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def done(out: Path) -> int:
    """The rows in the journal of a process that was killed."""
    journal = Journal(journal_path(out))
    try:
        return sum(1 for _ in journal.rows())
    finally:
        journal.close()


def test_killed_ten_times_it_embeds_each_file_once(
    serve: Serve, tmp_path: Path, photos: Photos
) -> None:
    out, paths, moments = tmp_path / "out.parquet", photos(300), random.Random(0)
    counts, model = [0], Slow()

    def seen() -> int:
        return sum(map(len, model.stacks))

    def wait_for(number: int) -> None:
        until(lambda: seen() >= number)

    with serve(model) as url:
        for number in range(10):
            process = start(out, url, tmp_path / "photos", "--concurrency", "2")
            if number:  # once also before anything is done
                wait_for(seen() + moments.randrange(25))
                until(lambda: journal_path(out).exists())
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
            process.communicate(timeout=60)
            assert not out.exists()
            counts.append(done(out))
        output, errors = start(out, url, tmp_path / "photos").communicate(timeout=120)
        assert re.match(r"\d+ embedded, \d+ unchanged, ", output), errors
        with Client(url) as client:
            alone = client.embed(paths)
    rows = sorted(format_of(out).read(out), key=lambda row: row.source)
    assert [row.source for row in rows] == [str(path) for path in paths]
    np.testing.assert_allclose(vectors(rows), alone, atol=1e-6)
    assert counts == sorted(counts)  # nothing was lost on the way
    assert len(set(counts)) > 2
    assert {path.name for path in tmp_path.iterdir()} == {"out.parquet", "photos", "served"}


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".jsonl"])
@pytest.mark.parametrize("moment", range(8))
def test_killed_while_it_writes_the_file_it_still_gets_there(
    tmp_path: Path, url: str, photos: Photos, ending: str, moment: int
) -> None:
    """Each step of the end is followed by one that never comes."""
    out, paths = tmp_path / f"out{ending}", photos(5)
    assert raylens("embed", str(paths[0]), "-o", str(out), "--url", url).exit_code == 0
    program = f"""
import os, pathlib, sqlite3
from raylens.cli import main
from raylens.embed import job
steps = iter(range(100))
def counted(real):
    def step(*arguments, **options):
        if next(steps) == {moment}:
            os.kill(os.getpid(), 9)
        return real(*arguments, **options)
    return step
real_finish = job.EmbedJob.finish
def finish(self):
    os.fsync = counted(os.fsync)
    pathlib.Path.replace = counted(pathlib.Path.replace)
    job.Journal.commit = counted(job.Journal.commit)
    job.Journal.clear = counted(job.Journal.clear)
    job.Journal.remove = counted(job.Journal.remove)
    real_finish(self)
job.EmbedJob.finish = finish
main()
"""
    folder = tmp_path / "photos"
    command = [sys.executable, "-c", program, "embed", folder, "-o", out, "--url", url]
    code = subprocess.run(
        [str(part) for part in command], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60
    ).returncode
    assert code in (0, -signal.SIGKILL)
    assert code or moment > 5  # it has come to nearly all
    result = raylens("embed", str(folder), "-o", str(out), "--url", url)
    assert result.stdout == f"0 embedded, 5 unchanged -> {out}\n", result.stderr
    rows = list(format_of(out).read(out))
    assert sorted(row.source for row in rows) == [str(path) for path in paths]
    left = {path.name for path in tmp_path.iterdir()} - {"photos", "served"}
    assert left == {path.name for path in format_of(out).files(out)}


def test_ctrl_c_says_that_it_goes_on(serve: Serve, tmp_path: Path, photos: Photos) -> None:
    out, paths = tmp_path / "out.npy", photos(100)
    with serve(Slow()) as url:
        process = start(out, url, *paths, "--concurrency", "1")
        until(lambda: journal_path(out).exists())
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors == "raylens: stopped; the same command goes on from there\n"
    assert done(out) > 0


def test_a_fresh_run_that_was_stopped_goes_on_without_the_old_rows(
    serve: Serve, tmp_path: Path, photos: Photos
) -> None:
    out, paths = tmp_path / "out.npy", photos(100)
    with serve(Slow()) as url:
        assert raylens("embed", str(paths[0]), "-o", str(out), "--url", url).exit_code == 0
        process = start(out, url, *paths[1:], "--concurrency", "1", "--fresh")
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert errors == ("raylens: stopped; the same command without --fresh goes on from there\n")
        raylens("embed", *map(str, paths[1:]), "-o", str(out), "--url", url)
    assert sorted(row.source for row in format_of(out).read(out)) == [str(p) for p in paths[1:]]


def test_a_service_that_is_not_there_exits_with_3(tmp_path: Path, photos: Photos) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        out = tmp_path / "out.npy"
        result = raylens("embed", *map(str, photos(2)), "-o", str(out), "--url", url)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"raylens: nothing answers at {url}")
    assert result.stderr.count("\n") == 1
    assert not journal_path(out).exists()


class Restarting(FakeModel):
    """Answers 503 for a while after some images, or for good."""

    def __init__(self, *, for_s: float) -> None:
        super().__init__()
        self.for_s = for_s
        self.until_s = 0.0

    async def embed(self, stack: Any, *rest: Any) -> Any:
        if len(self.stacks) == 5:
            self.until_s = self.until_s or time.monotonic() + self.for_s
            if time.monotonic() < self.until_s:
                raise Unavailable("The model is being loaded; retry.", retry_after_s=1)
        return await super().embed(stack, *rest)


def test_a_service_that_restarts_is_waited_for(
    serve: Serve, tmp_path: Path, photos: Photos
) -> None:
    out, paths = tmp_path / "out.npy", photos(200)
    with serve(Restarting(for_s=6)) as url:  # longer than a client's three retries
        result = raylens("embed", *map(str, paths), "-o", str(out), "--url", url)
    assert result.stdout.startswith("200 embedded, ")


def test_what_was_done_before_the_service_went_is_kept(
    serve: Serve, tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylens.cli.embed._RETRIES", 1)
    out, paths = tmp_path / "out.npy", photos(200)
    command = ("embed", *map(str, paths), "-o", str(out), "--concurrency", "1", "--url")
    with serve(Restarting(for_s=600)) as url:
        result = raylens(*command, url)
        assert result.exit_code == 3
        assert result.stderr.endswith("; what is done is kept, and the command goes on later\n")
    assert 0 < done(out) < 200
    with serve() as url:
        result = raylens(*command, url)
    assert re.match(r"\d+ embedded, \d+ unchanged, ", result.stdout)
