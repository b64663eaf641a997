"""Logs why items failed, for operators. Callers get a message that reveals no internals.

Serve puts the request's id into each line.
"""

import logging
import time
from collections.abc import Callable

from deployments.errors import RaylensError

logger = logging.getLogger("ray.serve")

# The least time between two lines of a kind: one dead host can fail thousands of items.
EVERY_S = 10.0
# Of a cause, which may quote what callers and remote servers sent.
MAX_CHARS = 300


class CauseLog:
    """Logs at most one line for each kind of cause every EVERY_S."""

    def __init__(self, log: Callable[[str], None] = logger.warning) -> None:
        self._log = log
        # By code and kind: when it was last logged, and how many were suppressed since. Bounded,
        # because a kind is named in our code or is an exception's type.
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, error: RaylensError) -> None:
        """Logs the cause of an error, if it has one."""
        if error.cause is None:
            return
        kind = (error.code, error.cause.partition(":")[0])
        now = time.monotonic()
        logged, suppressed = self._logged.get(kind, (now - EVERY_S, 0))
        if now - logged < EVERY_S:
            self._logged[kind] = (logged, suppressed + 1)
            return
        self._logged[kind] = (now, 0)
        more = f" ({suppressed} more of the kind since the last line)" if suppressed else ""
        self._log(f"An item failed with {error.code}: {_printable(error.cause)}{more}")


class CallerErrorFilter(logging.Filter):
    """Drops Serve's traceback of a handle call that failed through its caller's fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not (isinstance(error, RaylensError) and error.status < 500)


def _printable(cause: str) -> str:
    """On one line, in ASCII, so that callers cannot inject log lines."""
    return cause.encode("unicode_escape").decode("ascii")[:MAX_CHARS]
