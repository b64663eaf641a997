"""Requests that arrive at random, in the queues of the model replicas: how long each would take.

20,000 requests take a tenth of a second. They are served first come, first served: what
`BatchQueue` does for tenants and for small requests is left out. Replicas that start and stop are
in `benchmarks.autoscale.simulator`.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Request:
    arrived_s: float
    ingress: int
    images: int
    """Those in no batch yet."""


class Simulation:
    """Model replicas, each with a queue and one batch at a time. For one run."""

    def __init__(
        self, replicas: int, ingresses: int, *, batch_size: int, batch_s: Callable[[int], float]
    ) -> None:
        """`batch_s(n)` is the seconds that a batch of n images takes."""
        self._batch_size = batch_size
        self._batch_s = batch_s
        self._random = random.Random(0)  # noqa: S311  (no secret, and always the same)
        self._waiting = [deque[_Request]() for _ in range(replicas)]
        self._is_busy = [False] * replicas
        # What an ingress replica knows: how many of its own requests each model replica has.
        self._under_way = [[0] * replicas for _ in range(ingresses)]
        self._batches: list[tuple[float, int, list[_Request]]] = []  # a heap, by when they end
        self._took_s: list[float] = []

    def run(self, requests: int, requests_per_s: float, images: int) -> list[float]:
        """Seconds from the arrival of each request to the end of its last image, in the order in
        which they end. Those under way when the last one arrives are left out."""
        now = 0.0
        for _ in range(requests):
            now += self._random.expovariate(requests_per_s)
            while self._batches and self._batches[0][0] <= now:
                self._end(*heapq.heappop(self._batches))
            ingress = self._random.randrange(len(self._under_way))
            replica = self._chosen(self._under_way[ingress])
            self._under_way[ingress][replica] += 1
            self._waiting[replica].append(_Request(now, ingress, images))
            if not self._is_busy[replica]:
                self._begin(replica, now)
        return self._took_s

    def _chosen(self, under_way: list[int]) -> int:
        """The replica with the fewest requests of this ingress replica, as
        `deployments.embedder.routing` chooses it."""
        fewest = min(under_way)
        return self._random.choice([at for at, number in enumerate(under_way) if number == fewest])

    def _begin(self, replica: int, now: float) -> None:
        """Starts a batch of what waits, if anything does; `_end` gets the requests that it
        completes."""
        waiting, completed, free = self._waiting[replica], [], self._batch_size
        while waiting and free:
            taken = min(waiting[0].images, free)
            free -= taken
            waiting[0].images -= taken
            if not waiting[0].images:
                completed.append(waiting.popleft())
        images = self._batch_size - free
        self._is_busy[replica] = images > 0
        if images:
            heapq.heappush(self._batches, (now + self._batch_s(images), replica, completed))

    def _end(self, now: float, replica: int, completed: list[_Request]) -> None:
        for request in completed:
            self._took_s.append(now - request.arrived_s)
            self._under_way[request.ingress][replica] -= 1
        self._begin(replica, now)
