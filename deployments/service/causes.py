"""Why items failed, for operators. Callers get a sentence that tells nothing of the inside.

Serve puts the request's id into each line.
"""

import logging
import time
from collections.abc import Callable

from deployments.errors import RaylensError

logger = logging.getLogger("ray.serve")

# How often the same kind of cause is logged: one dead host can fail thousands of items.
EVERY_S = 10.0
# Of causes, which may quote what callers and their servers sent.
MAX_CHARS = 300


class CauseLog:
    """A log line for each kind of cause, and no more than one of a kind every EVERY_S."""

    def __init__(self, say: Callable[[str], None] = logger.warning) -> None:
        self._say = say
        # By code and kind: when it was said, and how many have not been said since. There are as
        # many kinds as our code names, and exceptions have types.
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, error: RaylensError) -> None:
        """Says why, if the error knows more than it tells its caller."""
        if error.cause is None:
            return
        kind = (error.code, error.cause.partition(":")[0])
        now = time.monotonic()
        said, unsaid = self._said.get(kind, (now - EVERY_S, 0))
        if now - said < EVERY_S:
            self._said[kind] = (said, unsaid + 1)
            return
        self._said[kind] = (now, 0)
        more = f" ({unsaid} more of the kind since the last line)" if unsaid else ""
        self._say(f"An item failed with {error.code}: {_printable(error.cause)}{more}")


class WithoutCallersErrors(logging.Filter):
    """Drops Serve's traceback of a handle call that raised an error of its caller's own doing."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not (isinstance(error, RaylensError) and error.status < 500)


def _printable(cause: str) -> str:
    """On one line, in ASCII: a caller must not write lines of his own into the log."""
    return cause.encode("unicode_escape").decode("ascii")[:MAX_CHARS]
