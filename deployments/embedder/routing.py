"""To which replica of the model a stack goes: the one with the fewest of ours under way.

Serve's own router asks for the length of a replica's queue as well, and over gRPC it gets what that
was when a stack arrived there only with its answer. Where stacks wait, it is old by then: Ray 2.60
sends all to one of two replicas until that is full, and then all to the other.
"""

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

Replica = TypeVar("Replica", bound=Hashable)


class UnderWay:
    """How many calls of this ingress replica each replica has. Others' calls are spread as evenly
    by their own ingress replicas."""

    def __init__(self) -> None:
        self._calls: Counter[Hashable] = Counter()

    def began(self, replica: Hashable) -> None:
        self._calls[replica] += 1

    def ended(self, replica: Hashable) -> None:
        self._calls[replica] -= 1
        if self._calls[replica] <= 0:
            del self._calls[replica]  # it may be gone

    def ranked(self, replicas: Sequence[Replica]) -> list[Replica]:
        """Those with the fewest calls first, in any order among equals."""
        shuffled = random.sample(replicas, len(replicas))
        return sorted(shuffled, key=lambda replica: self._calls[replica])


class FewestUnderWay(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray's types are Any
    """A `request_router_class` for Serve's `RequestRouterConfig`."""

    def initialize_state(self) -> None:
        """Called by Serve once it has made the router."""
        self._under_way = UnderWay()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Called by Serve, which takes the first that accepts a call."""
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        return [[by_id[found]] for found in self._under_way.ranked(list(by_id))]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Called by Serve for each call that goes to a replica."""
        super().on_send_request(replica_id)
        self._under_way.began(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called by Serve once for each of them, however it ends."""
        self._under_way.ended(replica_id)
