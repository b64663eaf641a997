"""Follows the log files that Serve's replicas and controller write, as `tail -f` would."""

import threading
from collections.abc import Callable
from pathlib import Path

INTERVAL_S = 0.5


class LogFollower:
    """Passes on what the `replica_*.log` files in `folder` gain, and errors of Serve's own parts.

    Ray itself shows a driver only the logs of its own job, and a Serve config is deployed by
    a job of the dashboard's.
    """

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder = folder
        self._show = show
        self._read: dict[Path, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shows what is left and ends."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            self._show_new_lines()
        self._show_new_lines()

    def _show_new_lines(self) -> None:
        for path in sorted(self._folder.glob("*.log")):
            begin = self._read.get(path, 0)
            if path.stat().st_size < begin:  # rotated
                begin = 0
            with path.open("rb") as file:
                file.seek(begin)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[path] = begin + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                if path.name.startswith("replica_") or line.startswith("ERROR"):
                    self._show(line)
