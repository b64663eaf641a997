"""Origins (scheme, host, port) that did not answer lately fail at once for a while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# So many failures in a row, with nothing else in between, make an origin a dead one.
FAILURES = 5
# So long nobody waits for it. Then one request finds out whether it is back.
PAUSE_S = 10.0
# Callers choose the names, so only so many are remembered.
MOST_ORIGINS = 1024


@dataclass
class _Origin:
    failures: int = 0
    dead_until: float = 0.0


class Breaker:
    """Remembers who did not answer (a circuit breaker)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._origins: OrderedDict[str, _Origin] = OrderedDict()

    def is_dead(self, origin: str) -> bool:
        """Whether not to ask it now. The first to come after a pause is told to."""
        known = self._origins.get(origin)
        if known is None or known.failures < FAILURES:
            return False
        now = self._clock()
        if now < known.dead_until:
            return True
        known.dead_until = now + PAUSE_S
        return False

    def failed(self, origin: str) -> None:
        known = self._origins.setdefault(origin, _Origin())
        self._origins.move_to_end(origin)
        known.failures += 1
        known.dead_until = self._clock() + PAUSE_S
        if len(self._origins) > MOST_ORIGINS:
            self._origins.popitem(last=False)

    def answered(self, origin: str) -> None:
        self._origins.pop(origin, None)
