"""Requests that arrive at random, and the queues of the replicas: how long each would take.

Plain and quick: 20,000 requests take less than a tenth of a second. `benchmarks.autoscale` has the
one in which replicas come and go.
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
    """That are in no batch yet."""


class Simulation:
    """Model replicas that are busy or not, and what waits in front of each."""

    def __init__(
        self, replicas: int, ingresses: int, *, batch_size: int, batch_s: Callable[[int], float]
    ) -> None:
        """`batch_s` is the time of a batch of so many images."""
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
        """The seconds that each request of so many images took, in the order of their ends; the
        last ones are still under way."""
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
        """The replica with the fewest, as `deployments.embedder.routing` does."""
        fewest = min(under_way)
        if under_way.count(fewest) == 1:
            return under_way.index(fewest)
        return self._random.choice([at for at, number in enumerate(under_way) if number == fewest])

    def _begin(self, replica: int, now: float) -> None:
        """A batch of what waits, if anything does; `_end` gets the requests that it completes."""
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
