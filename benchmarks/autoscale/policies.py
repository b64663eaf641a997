"""The policies under test, called as Serve's controller calls them, in simulated time.

raylens's is the very class that configs name. Serve's default one is its own function, and the
delays and factors that Serve puts on top of both are its own as well (ray 2.60).
"""

from collections import deque
from typing import Any

import yaml
from ray.serve import autoscaling_policy as of_serve
from ray.serve._private.common import DeploymentID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from benchmarks.autoscale.simulator import Profile, Replica, State
from tests.servers import ROOT

EMBEDDER = DeploymentID("Embedder", "raylens")


class Served:
    """The policy of an `autoscaling_config`, for the simulator."""

    def __init__(self, profile: Profile, autoscaling_config: dict[str, Any]) -> None:
        self.config = AutoscalingConfig(**autoscaling_config)
        policy: Any = self.config.policy.get_policy()
        options = self.config.policy.policy_kwargs
        self._policy = policy(**options) if isinstance(policy, type) else policy
        self._profile = profile
        self._state: dict[str, Any] = {}
        self._delays: dict[str, Any] = {}
        self._points: dict[Replica, dict[str, deque[TimeStampedValue]]] = {}
        self._calls: deque[tuple[float, float]] = deque()
        self._reported: tuple[dict[str, Any], float] = ({}, 0.0)

    def __call__(self, state: State) -> int:
        """Sees what was reported up to the last interval, then records what it is now."""
        config = self.config
        low, high = config.min_replicas, config.max_replicas
        metrics, calls = self._reported
        running = len(state.replicas)
        context: Any = AutoscalingContext(
            deployment_id=EMBEDDER,
            deployment_name="Embedder",
            app_name="raylens",
            current_num_replicas=running,
            target_num_replicas=state.target,
            running_replicas=list(state.replicas),
            total_num_requests=calls,
            total_queued_requests=float(state.waiting),
            aggregated_metrics={},
            raw_metrics=metrics,
            capacity_adjusted_min_replicas=low,
            capacity_adjusted_max_replicas=high,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=state.now,
            config=config,
        )
        wanted: Any
        if running == 0 and state.waiting:
            wanted = max(1, state.target)
        else:
            wanted, self._state = self._policy(context)
            wanted = of_serve._apply_scaling_factors(wanted, running, config)
            wanted, self._delays = of_serve._apply_delay_logic(
                max(0, wanted), state.target, config, self._delays, _now=state.now
            )
        self._record(state)
        return int(max(low, min(high, wanted)))

    def _record(self, state: State) -> None:
        now, config = state.now, self.config
        # Serve records five times in the period that it looks back on, or with each report.
        every_s = min(0.2 * config.look_back_period_s, config.metrics_interval_s)
        if now % every_s < self._profile.tick_s:
            for replica in [r for r in self._points if r not in state.replicas]:
                del self._points[replica]
            for replica in state.replicas:
                points = self._points.setdefault(replica, {})
                for name, value in self._reports(replica).items():
                    series = points.setdefault(name, deque())
                    series.append(TimeStampedValue(now, value))
                    while series[0].timestamp <= now - config.look_back_period_s:
                        series.popleft()
            self._calls.append((now, sum(r.calls for r in state.replicas) + state.waiting))
            while self._calls[0][0] <= now - config.look_back_period_s:
                self._calls.popleft()
        if now % config.metrics_interval_s < self._profile.tick_s:
            metrics: dict[str, Any] = {}
            for replica, points in self._points.items():
                for name, series in points.items():
                    metrics.setdefault(name, {})[replica] = list(series)
            mean = sum(calls for _, calls in self._calls) / max(1, len(self._calls))
            self._reported = metrics, mean

    def _reports(self, replica: Replica) -> dict[str, float]:
        """What `Embedder.record_autoscaling_stats` would return."""
        profile = self._profile
        waiting = len(replica.queue) + replica.running
        return {
            "accepted_s": replica.accepted_s,
            "refused_s": replica.refused_s,
            "backlog_s": waiting * profile.full_image_s,
            "batch_s": profile.full_image_s * profile.max_batch_size,
        }


def ours(*, min_replicas: int = 1, max_replicas: int = 12, **options: float) -> dict[str, Any]:
    """The `autoscaling_config` of a model in configs/, with other limits and `policy_kwargs`."""
    content = yaml.safe_load((ROOT / "configs" / "cpu-cluster.yaml").read_text())
    (embedder,) = (d for d in content["applications"][0]["deployments"] if d["name"] == "Embedder")
    config: dict[str, Any] = embedder["autoscaling_config"]
    policy = config["policy"] | {"policy_kwargs": options}
    limits = {"min_replicas": min_replicas, "max_replicas": max_replicas}
    return config | limits | {"policy": policy}


def serves_default(
    target: float, *, min_replicas: int = 1, max_replicas: int = 12
) -> dict[str, Any]:
    """Serve's default policy and all its defaults, but the target."""
    return {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "target_ongoing_requests": target,
    }
