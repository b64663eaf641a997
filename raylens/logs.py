"""Follows the log files that Serve's replicas and controller write, as `tail -f` would."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

INTERVAL_S = 0.5
# In a line of a log whose `encoding` is JSON.
_JSON_ERROR = '"levelname": "ERROR"'


class LogFollower:
    """Shows new lines in the replicas' log files in `folder`, and the errors in Serve's own.

    Ray itself shows a driver only the logs of its own job, and a Serve config is deployed by
    a job of the dashboard's.
    """

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder = folder
        self._show = show
        self._read: dict[int, int] = {}  # bytes, by inode: a rotated log is a new file
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shows the rest, unfinished lines included, and stops."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            self._show_new_lines(whole_only=True)
        self._show_new_lines(whole_only=False)

    def _show_new_lines(self, *, whole_only: bool) -> None:
        for path in sorted(self._folder.glob("*.log")):
            with contextlib.suppress(OSError), path.open("rb") as file:  # it may be gone already
                status = os.fstat(file.fileno())
                begin = self._read.get(status.st_ino, 0)
                if begin > status.st_size:  # truncated
                    begin = 0
                file.seek(begin)
                new = file.read()
                if whole_only:
                    new = new[: new.rfind(b"\n") + 1]
                self._read[status.st_ino] = begin + len(new)
                self._show_lines(path, new)

    def _show_lines(self, path: Path, text: bytes) -> None:
        for line in text.decode(errors="replace").splitlines():
            is_error = line.startswith("ERROR") or _JSON_ERROR in line
            if path.name.startswith("replica_") or is_error:
                self._show(line)
