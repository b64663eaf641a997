"""How far a task is: a line now and then where stderr is no terminal, a bar on a terminal."""

import os
import pty
import subprocess
import sys

import pytest

from raylens.progress import counted
from tests.servers import ROOT

PROGRAM = """
from raylens.progress import counted
with counted(2000, shown=True) as advance:
    for _ in range(4):
        advance(500, 1)
"""


def test_without_a_terminal_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with counted(2000, shown=True, every_s=0) as advance:
        advance(500, 0)
        advance(500, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("500 of 2,000, ")
    assert lines[0].endswith("/s, 0:00:00 left")
    assert lines[1].startswith("1,000 of 2,000, ")
    assert ", 3 failed, " in lines[1]
    assert len(lines) == 2


def test_without_a_terminal_a_short_task_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with counted(2, shown=True) as advance:
        advance(2, 0)
    assert capsys.readouterr().err == ""


def test_what_has_no_end_has_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with counted(None, shown=True, every_s=0) as advance:
        advance(7, 0)
    line = capsys.readouterr().err
    assert line.startswith("7, ")
    assert "left" not in line


def test_nothing_is_shown_if_it_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with counted(2, shown=False, every_s=0) as advance:
        advance(2, 1)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar() -> None:
    mine, its = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=its, env=environment)
    os.close(its)
    shown = b""
    try:
        while piece := os.read(mine, 4096):
            shown += piece
    except OSError:  # the end, on Linux
        pass
    finally:
        os.close(mine)
    assert process.wait(timeout=60) == 0
    assert b"2000/2000" in shown
    assert b"4 failed" in shown
    assert b"\x1b[" in shown
