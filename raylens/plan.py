"""How many replicas and nodes answer so many requests a second in time, by what was measured.

Knows nothing of a service: `raylens bench --profile` measured one, and this computes.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The most of its time that a replica is planned to work: arrivals are never as even as their mean.
MOST_BUSY = 0.9
# The same for the processors that decode. Their waits are short, but add to every request.
MOST_DECODING = 0.7
# The share of requests that may take longer than the p99.
_TAIL = 0.01
_MOST_REPLICAS = 100_000


class ProfileError(ValueError):
    """The profile cannot be planned with; the message says why."""


@dataclass(frozen=True)
class Profile:
    """What one service did when it was measured."""

    replicas: int
    """Of the model."""
    cpus: int
    """Processors of the machine that measured it, which is usually the service's own."""
    has_gpu: bool
    images_per_s: float
    """Of one model replica, with enough callers to keep it busy."""
    batch_s: float
    """The model's time for a batch with that many callers."""
    single_s: float
    """The model's time for a single image."""
    ingress_s: float
    """Everything else that a single image takes: decoding, HTTP, handles."""
    ingress_limits: bool
    """Whether the model waited for the ingress, so that it could do more than was measured."""

    @classmethod
    def of(cls, profile: Any) -> "Profile":
        """From the JSON that `raylens bench --profile` wrote. Raises ProfileError."""
        try:
            runs = {(run["callers"], run["images_per_request"]): run for run in profile["runs"]}
            alone = runs[1, 1]
            busy = max(
                (run for (_, images), run in runs.items() if images == 1),
                key=lambda run: float(run["images_per_s"]),
            )
            single_s, waits_s = _model_s(alone)
            batch_s, queue_s = _model_s(busy)
            found = cls(
                replicas=int(profile["replicas"]),
                cpus=int(profile["cpus"]),
                has_gpu=str(profile["model"]["device"]).startswith("cuda"),
                images_per_s=busy["images_per_s"] / profile["replicas"],
                batch_s=batch_s,
                single_s=single_s,
                ingress_s=max(0.0, alone["p50_ms"] / 1e3 - single_s - waits_s),
                # Callers who are only waiting for their turn at the model wait in its queue.
                ingress_limits=batch_s + queue_s < 0.5 * busy["p50_ms"] / 1e3,
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise ProfileError(
                "that is no profile of this version: measure with raylens bench --profile FILE"
            ) from None
        numbers = (found.images_per_s, found.batch_s, found.single_s, found.ingress_s)
        if (
            not all(map(math.isfinite, numbers))
            or min(*numbers[:3], found.replicas, found.cpus) <= 0
        ):
            raise ProfileError("the service answered nothing when it was measured")
        return found


def _model_s(run: Mapping[str, Any]) -> tuple[float, float]:
    """The median seconds in the model, and in the queue in front of it."""
    stages = run["stages_p50_ms"]
    return stages["model"] / 1e3, stages["queue"] / 1e3


@dataclass(frozen=True)
class Node:
    """What one machine has. A model replica takes `replica_cpus` and, with a GPU, one of those."""

    cpus: int
    gpus: int
    replica_cpus: int
    price: float | None = None
    """Of an hour."""


@dataclass(frozen=True)
class Plan:
    """What answers in time."""

    replicas: int
    ingresses: int
    """With one processor each."""
    nodes: int
    images_per_s: float
    """What that many replicas can do at most."""
    busy: float
    """The fraction of that which is asked for."""
    p99_s: float
    limit: str
    """What decided the number of replicas: the model's rate, or the p99."""
    price: float | None
    """Of an hour of all nodes."""


class OutOfReachError(ValueError):
    """No number of replicas answers in that time; the message says why."""


def plan(profile: Profile, node: Node, *, images_per_s: float, p99_s: float) -> Plan:
    """The fewest replicas that give `images_per_s`, 99 of 100 within `p99_s`.

    Raises OutOfReachError if an image takes longer whatever stands beside it, or a replica does not
    fit on a node.
    """
    alone_s = _batch_s(profile, 0)
    least_s = profile.ingress_s + 2 * alone_s
    if p99_s < least_s:
        raise OutOfReachError(
            f"one image takes {(profile.ingress_s + alone_s) * 1e3:.0f} ms, and "
            f"{least_s * 1e3:.0f} ms behind another: a p99 of {p99_s * 1e3:.0f} ms needs a faster "
            "model or processor, not more of them"
        )
    least = images_per_s / profile.images_per_s / MOST_BUSY
    if least > _MOST_REPLICAS:
        raise OutOfReachError(f"that would take {least:,.0f} model replicas")
    enough = math.ceil(least)
    replicas = bisect_left(
        range(_MOST_REPLICAS + 1),
        -p99_s,
        lo=enough,
        key=lambda number: -predicted_p99_s(profile, number, images_per_s),
    )
    if replicas > _MOST_REPLICAS:
        raise OutOfReachError(f"that would take more than {_MOST_REPLICAS:,} model replicas")
    ingresses = max(1, math.ceil(images_per_s * profile.ingress_s / MOST_DECODING))
    nodes = _nodes(profile, node, replicas, ingresses)
    return Plan(
        replicas=replicas,
        ingresses=ingresses,
        nodes=nodes,
        images_per_s=replicas * profile.images_per_s,
        busy=images_per_s / replicas / profile.images_per_s,
        p99_s=predicted_p99_s(profile, replicas, images_per_s),
        limit="the p99" if replicas > enough else "the model",
        price=None if node.price is None else nodes * node.price,
    )


def predicted_p99_s(profile: Profile, replicas: int, images_per_s: float) -> float:
    """What 99 of 100 requests of one image take at most; infinite if there are more than can be
    answered.

    The ingress, the rest of the batch that runs, the own batch, and what waits before: the tail of
    a queue with as many servers and a constant time of service, as Erlang's C and the correction
    for constant times give it (Tijms, A First Course in Stochastic Models, 2003, 9.6).
    """
    all_per_s = replicas * profile.images_per_s
    busy = images_per_s / all_per_s
    if busy >= 1:
        return math.inf
    waiting = erlang_c(replicas, busy)
    tail_s = max(0.0, math.log(waiting / _TAIL)) / (2 * all_per_s * (1 - busy)) if waiting else 0.0
    return profile.ingress_s + 2 * _batch_s(profile, images_per_s / replicas) + tail_s


def _batch_s(profile: Profile, images_per_s: float) -> float:
    """The time of a batch at such a load of one replica: what arrives during one is the next."""
    full = profile.images_per_s * profile.batch_s
    if full <= 1:
        return profile.batch_s
    each_s = max(0.0, (profile.batch_s - profile.single_s) / (full - 1))
    fixed_s = max(0.0, profile.single_s - each_s)
    idle = 1 - images_per_s * each_s
    if idle * profile.batch_s <= fixed_s:
        return profile.batch_s
    return max(profile.single_s, fixed_s / idle)


def erlang_c(servers: int, busy: float) -> float:
    """The share of arrivals that have to wait; `busy` is below 1. By Erlang's recursion."""
    offered = servers * busy
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - busy * (1 - blocked))


def _nodes(profile: Profile, node: Node, replicas: int, ingresses: int) -> int:
    """Raises OutOfReachError if no replica fits on a node."""
    if node.replica_cpus > node.cpus or (profile.has_gpu and not node.gpus):
        raise OutOfReachError(
            f"a model replica does not fit on a node: it takes {node.replica_cpus} CPUs"
            + (" and a GPU" if profile.has_gpu else "")
        )
    each = node.cpus // node.replica_cpus
    if profile.has_gpu:
        each = min(each, node.gpus)
    nodes = math.ceil(replicas / each)
    return max(nodes, math.ceil((replicas * node.replica_cpus + ingresses) / node.cpus))
