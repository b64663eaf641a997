"""How many replicas and nodes answer so many requests a second in time, by what was measured.

Knows nothing of a service: `raylens bench --profile` measured one, and this computes.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from raylens.simulation import Simulation

# The most of its time that a replica is planned to work: arrivals are never as even as their mean.
MOST_BUSY = 0.9
# The same for the processors that decode.
MOST_DECODING = 0.7
# What the service sends to the model in one call: `deployments.service.stacks.STACK_ITEMS`. Larger
# requests are several calls, which overlap.
MOST_IMAGES = 32
_MOST_REPLICAS = 100_000
# A large service is simulated as one with at most so many replicas, and their part of the requests
# and ingress replicas; with fewer where batches are large, so that each replica has many.
_REQUESTS = 50_000
_REPLICAS = (8, 64)
_IMAGES = 512


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

    @property
    def batch_size(self) -> int:
        """Images in the model at a time when it is busy: its rate times its time (Little's law)."""
        return max(1, round(self.images_per_s * self.batch_s))

    def model_s(self, images: int) -> float:
        """Seconds of a batch: on a line from a single image to full ones at `images_per_s`."""
        full_s = self.batch_size / self.images_per_s
        if self.batch_size == 1:
            return min(self.batch_s, full_s)  # less than full_s where the model was not the limit
        least_s = min(self.single_s, full_s)
        return least_s + (full_s - least_s) * (images - 1) / (self.batch_size - 1)

    def ingresses(self, images_per_s: float) -> int:
        """How many ingress replicas take so many, with one processor each."""
        return max(1, math.ceil(images_per_s * self.ingress_s / MOST_DECODING))

    def request_s(self, images: int) -> float:
        """Seconds of a request of so many images in an idle service."""
        full, rest = divmod(images, self.batch_size)
        model_s = full * self.model_s(self.batch_size) + (self.model_s(rest) if rest else 0.0)
        return images * self.ingress_s + model_s + self.beside_s

    @property
    def beside_s(self) -> float:
        """What a single image takes longer than `model_s` says, which keeps to the rate."""
        return max(0.0, self.single_s - self.model_s(1))

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
            rest_s = alone["p50_ms"] / 1e3 - single_s - waits_s
            found = cls(
                replicas=int(profile["replicas"]),
                cpus=int(profile["cpus"]),
                has_gpu=str(profile["model"]["device"]).startswith("cuda"),
                images_per_s=busy["images_per_s"] / profile["replicas"],
                batch_s=batch_s,
                single_s=single_s,
                ingress_s=0.0 if rest_s < 0 else rest_s,
                # Callers who are only waiting for their turn at the model wait in its queue.
                ingress_limits=batch_s + queue_s < 0.5 * busy["p50_ms"] / 1e3,
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise ProfileError(
                "that is no profile of this version: measure with raylens bench --profile FILE"
            ) from None
        full = found.images_per_s * found.batch_s
        numbers = (found.images_per_s, found.batch_s, found.single_s, full, found.ingress_s)
        if (
            not all(map(math.isfinite, numbers))
            or min(*numbers[:4], found.replicas, found.cpus) <= 0
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


def plan(
    profile: Profile, node: Node, *, requests_per_s: float, images: int = 1, p99_s: float
) -> Plan:
    """How many replicas answer 99 of 100 requests, of so many images each (at most MOST_IMAGES),
    within `p99_s`. Where that takes more than the rate does, there are more of both deployments.

    Raises OutOfReachError if a request takes longer even in an idle service, if that would take
    more than 100,000 replicas, or if a replica does not fit on a node.
    """
    alone_s = profile.request_s(images)
    if p99_s < alone_s:
        raise OutOfReachError(
            f"a request takes {alone_s * 1e3:.0f} ms even in an idle service: a p99 of "
            f"{p99_s * 1e3:.0f} ms needs a faster model or processor, not more of them"
        )
    images_per_s = requests_per_s * images
    least = images_per_s / profile.images_per_s / MOST_BUSY
    if least > _MOST_REPLICAS:
        raise OutOfReachError(f"that would take {least:,.0f} model replicas")
    enough = most = math.ceil(least)

    def ingresses(replicas: int) -> int:
        return math.ceil(profile.ingresses(images_per_s) * replicas / enough)

    @cache
    def p99_with(replicas: int) -> float:
        return predicted_p99_s(
            profile,
            replicas,
            ingresses=ingresses(replicas),
            requests_per_s=requests_per_s,
            images=images,
        )

    def is_in_time(replicas: int) -> bool:
        return p99_with(replicas) <= p99_s * (1 + 1e-6)  # the clock of a simulation is rounded

    while not is_in_time(most):
        if most == _MOST_REPLICAS:
            raise OutOfReachError(f"that would take more than {most:,} model replicas")
        most = min(2 * most, _MOST_REPLICAS)
    replicas = enough + bisect_left(range(enough, most), True, key=is_in_time)
    nodes = _nodes(profile, node, replicas, ingresses(replicas))
    return Plan(
        replicas=replicas,
        ingresses=ingresses(replicas),
        nodes=nodes,
        images_per_s=replicas * profile.images_per_s,
        busy=images_per_s / replicas / profile.images_per_s,
        p99_s=p99_with(replicas),
        limit="the p99" if replicas > enough else "the model",
        price=None if node.price is None else nodes * node.price,
    )


def predicted_p99_s(
    profile: Profile, replicas: int, *, ingresses: int, requests_per_s: float, images: int = 1
) -> float:
    """Seconds in which 99 of 100 requests are answered; infinite if more come than can be.

    Requests that arrive at random are simulated. The same arguments give the same time.
    """
    if requests_per_s * images >= replicas * profile.images_per_s:
        return math.inf
    least, most = _REPLICAS
    number = min(replicas, max(least, min(most, _IMAGES // profile.batch_size)))
    part = number / replicas
    simulation = Simulation(
        number,
        math.ceil(ingresses * part),
        ingress_s=profile.ingress_s,
        batch_size=profile.batch_size,
        batch_s=profile.model_s,
    )
    took_s = simulation.run(_REQUESTS, requests_per_s * part, images)
    steady = sorted(took_s[len(took_s) // 10 :])  # the first ones found everything empty
    return steady[int(0.99 * len(steady))] + profile.beside_s


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
