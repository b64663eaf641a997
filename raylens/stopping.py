"""Ctrl-C and SIGTERM, as a flag that a running command waits for."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType

from raylens.cluster import descendants, kill


class Stop:
    """As threading.Event, but set by a signal's handler, in which an Event can block for ever: the
    handler runs in the main thread, which may be inside Event.wait and hold the Event's lock."""

    def __init__(self, woken: int) -> None:
        """`woken` is a file descriptor that can be read from after any signal."""
        self._is_set = False
        self._woken = woken

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Whether it is set, now or within `timeout_s` seconds, which another signal cuts short."""
        # The pipe also ends a wait that begins between a signal and its handler, or if another
        # thread gets the signal. Nothing else would.
        if not self._is_set and select.select([self._woken], [], [], timeout_s)[0]:
            os.read(self._woken, 1)
        return self._is_set


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """A flag that Ctrl-C and SIGTERM set; a second signal kills everything at once."""

    def handler(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            kill(descendants())
            os._exit(128 + signum)
        stop.set()

    with contextlib.ExitStack() as cleanup:
        woken, wake = os.pipe()
        cleanup.callback(os.close, woken)
        cleanup.callback(os.close, wake)
        os.set_blocking(wake, False)
        stop = Stop(woken)
        cleanup.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake))
        for signum in (signal.SIGINT, signal.SIGTERM):
            cleanup.callback(signal.signal, signum, signal.signal(signum, handler))
        yield stop
