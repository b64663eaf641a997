"""Requests that arrive at random, in the queues of a service: how long each would take.

They are served first come, first served: what `BatchQueue` does for tenants and for small requests
is left out. Replicas that start and stop are in `benchmarks.autoscale.simulator`.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Request:
    arrived_s: float
    ingress: int
    images: int
    """Those in no batch yet."""


class Simulation:
    """Ingress replicas that decode one request at a time, and model replicas that run one batch at
    a time, each with a queue. For one run."""

    def __init__(
        self,
        replicas: int,
        ingresses: int,
        *,
        ingress_s: float,
        batch_size: int,
        batch_s: Callable[[int], float],
    ) -> None:
        """`ingress_s` is what the ingress takes for an image, and `batch_s(n)` what a batch of n
        images takes, in seconds."""
        self._ingress_s = ingress_s
        self._batch_size = batch_size
        self._batch_s = batch_s
        self._random = random.Random(0)  # noqa: S311  (no secret, and always the same)
        self._decoded_s = [0.0] * ingresses  # when each has decoded all that has arrived there
        self._waiting = [deque[_Request]() for _ in range(replicas)]
        self._is_busy = [False] * replicas
        # What an ingress replica knows: how many of its own requests each model replica has.
        self._under_way = [[0] * replicas for _ in range(ingresses)]
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []  # a heap
        self._number = 0
        self._took_s: list[float] = []

    def run(self, requests: int, requests_per_s: float, images: int) -> list[float]:
        """Seconds from the arrival of each request to the end of its last image, in the order in
        which they end. Those under way when the last one arrives are left out."""
        now = 0.0
        for _ in range(requests):
            now += self._random.expovariate(requests_per_s)
            while self._events and self._events[0][0] <= now:
                at, _, event, argument = heapq.heappop(self._events)
                event(at, argument)
            ingress = self._random.randrange(len(self._decoded_s))
            decoded_s = max(now, self._decoded_s[ingress]) + images * self._ingress_s
            self._decoded_s[ingress] = decoded_s
            self._later(decoded_s, self._send, _Request(now, ingress, images))
        return self._took_s

    def _later(self, at: float, event: Callable[[float, Any], None], argument: Any) -> None:
        self._number += 1  # of two events at the same time, the one that was known first
        heapq.heappush(self._events, (at, self._number, event, argument))

    def _send(self, now: float, request: _Request) -> None:
        """To the replica with the fewest requests of this ingress replica, as
        `deployments.embedder.routing` chooses it."""
        under_way = self._under_way[request.ingress]
        fewest = min(under_way)
        replica = self._random.choice([at for at, n in enumerate(under_way) if n == fewest])
        under_way[replica] += 1
        self._waiting[replica].append(request)
        if not self._is_busy[replica]:
            self._begin(now, replica)

    def _begin(self, now: float, replica: int) -> None:
        """Starts a batch of what waits, if anything does."""
        waiting, size = self._waiting[replica], self._batch_size
        self._is_busy[replica] = bool(waiting)
        if not waiting:
            return
        full = (waiting[0].images - 1) // size
        if full:  # of a large request, all batches but the last, in one
            waiting[0].images -= full * size
            self._later(now + full * self._batch_s(size), self._end, (replica, []))
            return
        completed, free = [], size
        while waiting and free:
            taken = min(waiting[0].images, free)
            free -= taken
            waiting[0].images -= taken
            if not waiting[0].images:
                completed.append(waiting.popleft())
        self._later(now + self._batch_s(size - free), self._end, (replica, completed))

    def _end(self, now: float, batch: tuple[int, list[_Request]]) -> None:
        replica, completed = batch
        for request in completed:
            self._took_s.append(now - request.arrived_s)
            self._under_way[request.ingress][replica] -= 1
        self._begin(now, replica)
