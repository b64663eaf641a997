"""The logs of a local Ray are followed, in whole lines, as files grow and rotate."""

import queue
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from raylens import logs
from raylens.logs import LogFollower


class Shown:
    """Collects what a follower shows, and waits for it."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue()

    def __call__(self, line: str) -> None:
        self._lines.put(line)

    def next(self, number: int = 1) -> list[str]:
        return [self._lines.get(timeout=10) for _ in range(number)]

    def rest(self) -> list[str]:
        lines = []
        with suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        return lines


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def follower(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LogFollower]:
    monkeypatch.setattr(logs, "INTERVAL_S", 0.02)
    opened = LogFollower(tmp_path, shown)
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "replica_raylens_Embedder_x.log"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_log_is_shown_line_by_line_as_it_grows(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "one\ntwo\n")
    assert shown.next(2) == ["one", "two"]
    append(log, "three\n")
    assert shown.next() == ["three"]


def test_a_line_is_shown_once_it_is_whole(follower: LogFollower, shown: Shown, log: Path) -> None:
    append(log, "one\nhalf a li")
    assert shown.next() == ["one"]
    append(log, "ne\n")
    assert shown.next() == ["half a line"]


def test_closing_shows_the_rest_at_once(follower: LogFollower, shown: Shown, log: Path) -> None:
    append(log, "one\ntwo\n")
    follower.close()
    assert shown.rest() == ["one", "two"]


def test_closing_shows_a_last_line_that_has_no_end(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "one\nlast wor")
    follower.close()
    assert shown.rest() == ["one", "last wor"]


def test_a_log_that_was_cut_short_is_read_from_its_beginning(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "a rather long line\n")
    shown.next()
    log.write_text("short\n")
    assert shown.next() == ["short"]


@pytest.mark.parametrize("new", ["short\n", "a line that is longer than the old one was\n"])
def test_a_rotated_log_is_read_on_in_its_new_file(
    follower: LogFollower, shown: Shown, log: Path, new: str
) -> None:
    append(log, "the old line\n")
    shown.next()
    log.rename(f"{log}.1")
    log.write_text(new)
    assert shown.next() == [new.strip()]


def test_a_log_that_vanishes_does_not_end_the_others(
    follower: LogFollower, shown: Shown, log: Path, tmp_path: Path
) -> None:
    other = tmp_path / "replica_gone.log"
    other.symlink_to(tmp_path / "nothing")  # listed, but gone when it is looked at
    (tmp_path / "replica_folder.log").mkdir()
    append(log, "one\n")
    assert shown.next() == ["one"]
    other.unlink()
    append(log, "two\n")
    assert shown.next() == ["two"]


def test_replica_logs_are_shown_whole_and_of_serves_own_logs_only_the_errors(
    follower: LogFollower, shown: Shown, log: Path, tmp_path: Path
) -> None:
    append(tmp_path / "controller_1.log", "INFO a\nERROR b\n")
    append(tmp_path / "proxy.txt", "ERROR c\n")
    append(log, "INFO d\n")
    follower.close()
    assert shown.rest() == ["ERROR b", "INFO d"]


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    log.write_bytes(b"caf\xe9\n")
    follower.close()
    assert shown.rest() == ["caf\ufffd"]


def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path: Path, shown: Shown) -> None:
    folder = tmp_path / "serve"
    opened = LogFollower(folder, shown)
    folder.mkdir()
    append(folder / "replica_x.log", "one\n")
    opened.close()
    assert shown.rest() == ["one"]


def test_serves_own_errors_are_shown_in_json_as_well(
    follower: LogFollower, shown: Shown, tmp_path: Path
) -> None:
    line = '{{"asctime": "now", "levelname": "{}", "message": "m"}}\n'
    append(tmp_path / "controller_1.log", line.format("INFO") + line.format("ERROR"))
    assert shown.next() == [line.format("ERROR").strip()]
