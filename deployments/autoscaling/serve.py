"""What Ray Serve calls: `autoscaling_config.policy.policy_function` of a deployment names a class.

Serve makes one, with `policy_kwargs`, in its controller, and calls it in each round of its control
loop, ten times a second. Serve then applies the deployment's own delays and limits; the delays
should be 0, since the policy has its own. Serve sends this module along by value, but the head node
must have raylens installed for what it imports.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.autoscaling.policy import Memory, Observation, ScalingPolicy

logger = logging.getLogger("ray.serve")

# Rates are taken over at least this long, from the points that a replica has reported.
RATE_S = 1.5
_MEMORY = "raylens"

Reported = Mapping[str, Mapping[Any, Sequence[Any]]]
"""By metric and replica, points with `timestamp` and `value`, the oldest first."""


class WaitPolicy:
    """For model deployments: enough replicas that items do not wait long.

    Options are the fields of `ScalingPolicy`.
    """

    _worked = "accepted_s"
    """What every replica reports: the sum of its work."""

    def __init__(self, **options: float) -> None:
        self._policy = ScalingPolicy(**options)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas for an `AutoscalingContext`, and what to remember."""
        memory = ctx.policy_state.get(_MEMORY)
        if memory is None or ctx.current_time < memory.at:  # the clock was set back
            memory = Memory()
        reported: Reported = ctx.raw_metrics or {}
        if ctx.current_num_replicas and not any(reported.get(self._worked, {}).values()):
            # They have just started, or are so busy that Serve gets no answer: not idle.
            return ctx.target_num_replicas, {_MEMORY: memory}
        seen = self._observed(ctx)
        policy = self._policy
        wanted = policy.replicas(seen, memory)
        allowed = min(wanted, ctx.capacity_adjusted_max_replicas)
        if max(allowed, ctx.capacity_adjusted_min_replicas) != seen.target:
            logger.info(
                f"{ctx.deployment_name}: {seen.target} replicas, {wanted} wanted. What arrives "
                f"keeps {memory.fast:.2f} busy, {memory.slow:.2f} on average; what waits would "
                f"keep one busy for {seen.backlog_s:.1f} s; one starts in "
                f"{policy.startup_s(memory):.1f} s."
            )
        return wanted, {_MEMORY: memory}

    def _observed(self, ctx: Any) -> Observation:
        reported: Reported = ctx.raw_metrics or {}
        return Observation(
            now=ctx.current_time,
            running=ctx.current_num_replicas,
            target=ctx.target_num_replicas,
            demand=rate(reported, self._worked),
            refused=rate(reported, "refused_s"),
            backlog_s=math.fsum(latest(reported, "backlog_s")),
            batch_s=max(latest(reported, "batch_s"), default=0.0),
            queued=ctx.total_queued_requests,
        )


class ProcessorPolicy(WaitPolicy):
    """For the ingress: enough replicas that their processors are not busy all the time."""

    _worked = "processor_s"

    def _observed(self, ctx: Any) -> Observation:
        reported: Reported = ctx.raw_metrics or {}
        processors = max(latest(reported, "processors"), default=1.0)
        return Observation(
            now=ctx.current_time,
            running=ctx.current_num_replicas,
            target=ctx.target_num_replicas,
            demand=rate(reported, self._worked) / processors,
        )


def latest(reported: Reported, name: str) -> list[float]:
    """The last value of each replica."""
    return [points[-1].value for points in reported.get(name, {}).values() if points]


def rate(reported: Reported, name: str) -> float:
    """How fast a running total grows now, per second, at all replicas that have reported it
    twice."""
    total = 0.0
    for points in reported.get(name, {}).values():
        if not points:
            continue
        last = points[-1]
        earlier = [p for p in points if p.timestamp <= last.timestamp - RATE_S]
        first = earlier[-1] if earlier else points[0]
        if first.timestamp < last.timestamp:
            total += (last.value - first.value) / (last.timestamp - first.timestamp)
    return total
