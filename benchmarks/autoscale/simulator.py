"""The model deployment as a queue: replicas that start and stop, batches, refusals. No Ray.

The queue in each replica is raylens's own (`BatchQueue`). Each call goes to the replica with the
fewest calls, as one ingress replica sends them (`embedder.routing`). Otherwise the ingress only
refuses what would wait for longer than `limits.max_wait_s`; it takes no time.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.autoscale.traces import Trace
from deployments.embedder.batch_queue import BatchQueue, Waiting


@dataclass(frozen=True)
class Profile:
    """What has been measured of a model on some machine."""

    batch_s: float
    """What each batch takes, whatever it holds."""
    image_s: float
    """What each image adds to that."""
    max_batch_size: int
    start_s: float
    """From the decision to have a replica until it serves."""
    max_wait_s: float = 5.0
    tick_s: float = 1.0
    """How often replicas report, and the policy is asked."""

    @property
    def full_image_s(self) -> float:
        """An image's part of a full batch."""
        return self.batch_s / self.max_batch_size + self.image_s


@dataclass(eq=False)
class Replica:
    """One replica, and what it reports."""

    since: float
    """When it was asked for."""
    ready: bool = False
    leaving: bool = False
    queue: BatchQueue = field(default_factory=BatchQueue)
    running: int = 0
    """Images in the batch that is being computed."""
    calls: int = 0
    """Requests that wait or are being computed."""
    accepted_s: float = 0.0
    refused_s: float = 0.0


@dataclass(frozen=True)
class State:
    """What a policy may know at one moment."""

    now: float
    """In seconds since the trace began."""
    replicas: tuple[Replica, ...]
    """Those that serve."""
    target: int
    """Replicas that were asked for last."""
    waiting: int
    """Calls for which there is no replica."""


Policy = Callable[[State], int]
"""How many replicas there should be."""


@dataclass
class Outcome:
    """What became of a trace."""

    seconds: float
    """How long the trace is."""
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests that were answered, without those of the bulk job."""
    refused: int = 0
    """Requests."""
    bulk_s: float = 0.0
    """How long the bulk job took."""
    replica_s: float = 0.0
    """Seconds of all replicas, from the decision to have them until they were gone."""
    changes: int = 0
    """How often the policy wanted another number of replicas."""
    most: int = 0
    """The largest number that it wanted."""

    @property
    def replica_hours(self) -> float:
        return self.replica_s / 3600

    def percentile(self, percent: float) -> float:
        """Of the latencies, in seconds; NaN without any."""
        return float(np.percentile(self.latencies_s, percent)) if self.latencies_s else float("nan")


@dataclass(eq=False, slots=True)
class _Call(Waiting):
    arrived: float = 0.0
    left: int = 0
    replica: Any = None
    is_bulk: bool = False


class Simulator:
    """Runs one trace under one policy."""

    def __init__(self, profile: Profile, trace: Trace, policy: Policy, *, replicas: int) -> None:
        self.profile = profile
        self.trace = trace
        self.policy = policy
        self.outcome = Outcome(trace.seconds, most=replicas)
        self._random = random.Random(0)  # noqa: S311  (not for secrets)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._replicas = [Replica(0.0, ready=True) for _ in range(replicas)]
        self._serving = list(self._replicas)
        self._target = replicas
        self._held: list[_Call] = []
        self._items = 0
        self._refused = 0.0
        self._bulk_left = trace.bulk.requests if trace.bulk else 0

    def run(self) -> Outcome:
        self._later(self.profile.tick_s, self._tick)
        if self.trace.bulk is not None:
            for _ in range(self.trace.bulk.under_way):
                self._later(self.trace.bulk.begins_s, self._bulk)
        arrivals, items = self.trace.arrivals_s.tolist(), self.trace.items.tolist()
        index, number = 0, len(arrivals)
        while self._events and self._events[0][0] < self.trace.seconds + 60:
            due = self._events[0][0]
            while index < number and arrivals[index] <= due:
                self._arrive(arrivals[index], items[index])
                index += 1
                due = self._events[0][0]
            now, _, action, arguments = heapq.heappop(self._events)
            action(now, *arguments)
        for replica in self._replicas:
            self.outcome.replica_s += self.trace.seconds - min(replica.since, self.trace.seconds)
        return self.outcome

    def _later(self, at: float, action: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, action, arguments))

    def _arrive(self, now: float, items: int, *, is_bulk: bool = False) -> bool:
        each_s = self.profile.full_image_s
        if self._items * each_s > self.profile.max_wait_s * max(1, len(self._serving)):
            self.outcome.refused += 1
            self._refused += items
            return False
        self._items += items
        tenant = "bulk" if is_bulk else None
        call = _Call(range(items), tenant, now + items * each_s, arrived=now, left=items)  # type: ignore[arg-type]
        call.is_bulk = is_bulk
        self._route(now, call)
        return True

    def _bulk(self, now: float) -> None:
        """Sends the bulk job's next request; one that is refused comes again."""
        bulk = self.trace.bulk
        if bulk is not None and self._bulk_left:
            if self._arrive(now, bulk.items, is_bulk=True):
                self._bulk_left -= 1
            else:
                self._later(now + 1.0, self._bulk)

    def _route(self, now: float, call: _Call) -> None:
        if not self._serving:
            self._held.append(call)
            return
        fewest = min(replica.calls for replica in self._serving)
        replica = self._random.choice([r for r in self._serving if r.calls == fewest])
        replica.calls += 1
        each_s = self.profile.full_image_s
        replica.accepted_s += call.left * each_s
        replica.refused_s += self._refused * each_s
        self._refused = 0.0
        replica.queue.put(call)
        if not replica.running:
            self._next_batch(now, replica)

    def _next_batch(self, now: float, replica: Replica) -> None:
        pieces = replica.queue.next(self.profile.max_batch_size)
        replica.running = sum(len(piece.stack) for piece in pieces)
        if pieces:
            took_s = self.profile.batch_s + self.profile.image_s * replica.running
            self._later(now + took_s, self._done, replica, pieces)
        elif replica.leaving:
            self._gone(now, replica)

    def _done(self, now: float, replica: Replica, pieces: list[Any]) -> None:
        for piece in pieces:
            call = piece.waiting
            call.left -= len(piece.stack)
            self._items -= len(piece.stack)
            if not call.left:
                replica.calls -= 1
                if call.is_bulk:
                    self.outcome.bulk_s = now - (self.trace.bulk.begins_s if self.trace.bulk else 0)
                    self._later(now, self._bulk)
                else:
                    self.outcome.latencies_s.append(now - call.arrived)
        self._next_batch(now, replica)

    def _tick(self, now: float) -> None:
        if now >= self.trace.seconds:
            return
        self._later(now + self.profile.tick_s, self._tick)
        wanted = self.policy(State(now, tuple(self._serving), self._target, len(self._held)))
        if wanted == self._target:
            return
        self.outcome.changes += 1
        self.outcome.most = max(self.outcome.most, wanted)
        self._target = wanted
        staying = [replica for replica in self._replicas if not replica.leaving]
        for replica in staying[wanted:]:  # those that start, and the youngest
            replica.leaving = True
            if replica.ready:
                self._serving.remove(replica)
            if not replica.running:
                self._gone(now, replica)
        for _ in range(wanted - len(staying)):
            replica = Replica(now)
            self._replicas.append(replica)
            self._later(now + self.profile.start_s, self._ready, replica)

    def _ready(self, now: float, replica: Replica) -> None:
        if replica.leaving:
            return
        replica.ready = True
        self._serving.append(replica)
        held, self._held = self._held, []
        for call in held:
            self._route(now, call)

    def _gone(self, now: float, replica: Replica) -> None:
        self._replicas.remove(replica)
        self.outcome.replica_s += min(now, self.trace.seconds) - min(
            replica.since, self.trace.seconds
        )
