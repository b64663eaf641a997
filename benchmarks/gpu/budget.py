"""How much time there is, and an end to what takes longer. Knows nothing of what is measured."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Seconds that run out. `part` is a share of what is left, so time saved is passed on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + seconds

    def left(self) -> float:
        """In seconds, never below 0."""
        return max(0.0, self._ends - self._clock())

    def part(self, share: float) -> "Budget":
        """A share, 0 to 1, of what is left."""
        return Budget(share * self.left(), self._clock)


class OutOfTimeError(BaseException):
    """Raised where the code happens to be. Not an Exception, since libraries catch those."""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the main thread if its body takes longer.

    What runs in C ends first. Without effect in other threads, and where there are no such signals.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def end(number: int, frame: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, end)
    timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # somebody else's, or none
