"""How fast the replicas of a model work on one modality, as their answers tell an ingress replica.

Knows nothing of Ray.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.wire import QueueState

# A replica that has not answered for so long, while others have, is gone.
GONE_S = 10.0
# How long an answer says how much waits at a replica.
FRESH_S = 1.0


class Pace:
    """Adds up what the replicas have reported. All of it is in seconds of all replicas' time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, QueueState]] = {}
        self._own = 0  # items of this ingress replica that are at the model

    @contextmanager
    def sent(self, items: int) -> Iterator[None]:
        """To be held while `items` are at the model."""
        self._own += items
        try:
            yield
        finally:
            self._own -= items

    def note(self, state: QueueState) -> None:
        """Takes what came with an answer."""
        now = self._clock()
        self._heard[state.replica] = now, state
        for replica, (heard, _) in [*self._heard.items()]:
            if heard < now - GONE_S:
                del self._heard[replica]

    @property
    def item_s(self) -> float:
        """Seconds for one item; 0 while nothing is known."""
        per_s = sum(1 / state.item_s for _, state in self._heard.values() if state.item_s)
        return 1 / per_s if per_s else 0.0

    @property
    def others_s(self) -> float:
        """Seconds that the items of other ingress replicas will take."""
        fresh = self._clock() - FRESH_S
        waiting = sum(state.waiting for heard, state in self._heard.values() if heard > fresh)
        return max(0, waiting - self._own) * self.item_s
