"""Ctrl-C and SIGTERM, as a flag that a running command waits for."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType

from raylens.cluster import descendants, kill


class Stop:
    """As threading.Event, but a signal's handler may set it.

    A handler runs in the main thread, wherever that is. If it is in Event.wait, it may hold the
    event's lock, for which Event.set in the handler then waits for ever. A pipe has no lock.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def set(self) -> None:
        os.write(self._write, b".")  # nobody reads it, so it stays set

    def is_set(self) -> bool:
        return self.wait(0)

    def wait(self, timeout_s: float) -> bool:
        """Whether it is set; if not, it may become so for `timeout_s` seconds."""
        return bool(select.select([self._read], [], [], timeout_s)[0])

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """A flag that Ctrl-C and SIGTERM set; a second signal kills everything at once."""

    def handler(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            kill(descendants())
            os._exit(128 + signum)
        stop.set()

    with contextlib.closing(Stop()) as stop:
        before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for signum, old in before.items():
                signal.signal(signum, old)
