"""A circuit breaker: an origin (scheme, host, port) that keeps failing is not asked for a while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Consecutive failures after which an origin counts as dead.
FAILURES = 5
# How long requests to it then fail at once, before one of them tests it again.
PAUSE_S = 10.0
# Clients choose the hosts, so the number remembered is bounded.
MOST_ORIGINS = 1024


@dataclass
class _Origin:
    failures: int = 0
    dead_until: float = 0.0


class Breaker:
    """Counts the consecutive failures of each origin."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._origins: OrderedDict[str, _Origin] = OrderedDict()

    def is_dead(self, origin: str) -> bool:
        """Whether to fail at once. After each pause, False once: that request is the test."""
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
