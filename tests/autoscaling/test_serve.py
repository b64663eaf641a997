"""What Serve calls, with contexts as Serve makes them."""

import logging
import os
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from deployments.autoscaling.processor_time import ProcessorTime
from deployments.autoscaling.serve import rate

EMBEDDER = DeploymentID("Embedder", "raylens")
WAIT = "deployments.autoscaling.serve:WaitPolicy"
PROCESSORS = "deployments.autoscaling.serve:ProcessorPolicy"


def called(policy_function: str, **options: float) -> Any:
    """The policy as Serve's controller has it, out of a config."""
    return AutoscalingPolicy(policy_function=policy_function, policy_kwargs=options).get_policy()(
        **options
    )


def series(*points: tuple[float, float]) -> list[TimeStampedValue]:
    return [TimeStampedValue(timestamp, value) for timestamp, value in points]


def context(
    now: float,
    state: dict[str, Any],
    replicas: int,
    queued: float = 0.0,
    /,
    **metrics: list[tuple[float, float]],
) -> AutoscalingContext:
    """With the same points from every replica."""
    ids = [ReplicaID(str(number), EMBEDDER) for number in range(replicas)]
    return AutoscalingContext(
        deployment_id=EMBEDDER,
        deployment_name="Embedder",
        app_name="raylens",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=ids,
        total_num_requests=queued,
        total_queued_requests=queued,
        aggregated_metrics={},
        raw_metrics={
            name: {replica: series(*points) for replica in ids} for name, points in metrics.items()
        },
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=AutoscalingConfig(),
    )


def test_a_model_deployment_scales_on_what_its_replicas_report(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = called(WAIT, utilisation=0.5)
    busy = {"accepted_s": [(98.0, 1.0), (99.0, 1.6), (100.0, 2.2)], "batch_s": [(100.0, 0.2)]}
    with caplog.at_level(logging.INFO, "ray.serve"):
        wanted, _ = policy(context(101, {}, 2, **busy))
    assert wanted == 3  # 1.2 seconds a second, at half of the time
    assert "Embedder: 2 replicas, 3 wanted. What arrives keeps 1.20 busy" in caplog.text


def test_what_it_remembers_goes_through_the_state() -> None:
    policy = called(WAIT, down_after_s=60)
    _, state = policy(context(101, {}, 3, accepted_s=[(98.0, 0.0), (100.0, 1.4)]))
    idle: list[tuple[float, float]] = [(148.0, 1.4), (150.0, 1.4)]
    assert policy(context(151, state, 3, accepted_s=idle))[0] == 3
    assert policy(context(162, state, 3, accepted_s=idle))[0] == 1


def test_a_model_does_not_sleep_while_serve_would_wake_it_up_at_once() -> None:
    policy = called(WAIT, idle_after_s=4)
    idle: list[tuple[float, float]] = [(98.0, 1.4), (100.0, 1.4)]
    _, state = policy(context(101, {}, 1, accepted_s=idle))
    _, state = policy(context(102, state, 1, accepted_s=idle))
    # The call that its start kept waiting is still in Serve's look_back_period_s.
    assert policy(context(106, state, 1, 0.1, accepted_s=idle))[0] == 1
    assert policy(context(107, state, 1, accepted_s=idle))[0] == 0


def test_the_log_is_quiet_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        wanted, _ = called(WAIT)(context(101, {}, 4, accepted_s=[(98.0, 0.0), (100.0, 9.0)]))
    assert wanted > 4
    assert not caplog.text


def test_before_anything_is_reported_nothing_changes() -> None:
    assert called(WAIT)(context(101, {}, 1))[0] == 1
    assert called(PROCESSORS)(context(101, {}, 1))[0] == 1


def test_the_ingress_scales_on_its_processors() -> None:
    used = [(98.0, 10.0), (100.0, 13.0)]
    policy = called(PROCESSORS, utilisation=0.75)
    for processors, wanted in ((1.0, 4), (2.0, 2)):
        seen = context(101, {}, 2, processor_s=used, processors=[(100.0, processors)])
        assert policy(seen)[0] == wanted


def test_a_rate_needs_two_points_of_a_replica_and_spans_more_than_one_interval() -> None:
    points = {
        "new": series((100.0, 5.0)),
        "steady": series((98.0, 1.0), (98.9, 1.9), (99.9, 2.9), (100.0, 3.0)),
    }
    assert rate({"accepted_s": points}, "accepted_s") == pytest.approx(1.0)
    assert rate({}, "accepted_s") == 0


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="utilization"):
        called(WAIT, utilization=0.5)


def test_processor_time_counts_children_and_never_falls() -> None:
    processors = ProcessorTime(reserved=2)
    before = processors.stats()
    assert before["processors"] == 2
    child = psutil.Popen(["sh", "-c", "while :; do :; done"])
    deadline = time.monotonic() + 30
    while sum(psutil.Process(child.pid).cpu_times()[:2]) < 0.2 and time.monotonic() < deadline:
        time.sleep(0.05)
    during = processors.stats()
    child.kill()
    child.wait()
    after = processors.stats()
    assert during["processor_s"] >= before["processor_s"] + 0.2
    assert after["processor_s"] >= during["processor_s"]
    assert ProcessorTime(reserved=0).stats()["processors"] <= (os.cpu_count() or 1)


def test_a_context_is_all_that_it_needs() -> None:
    """Whatever else Serve's context has or will have."""
    needed = SimpleNamespace(
        deployment_name="Embedder",
        policy_state={},
        raw_metrics=None,
        current_time=1.0,
        current_num_replicas=1,
        target_num_replicas=1,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=2,
    )
    assert called(WAIT)(needed)[0] == 1


def test_a_clock_that_is_set_back_while_a_replica_starts_asks_for_no_more() -> None:
    policy, state = called(WAIT), dict[str, Any]()
    half = {"accepted_s": [(98.0, 0.0), (100.0, 1.0)], "batch_s": [(100.0, 0.1)]}
    for now, running, target in ((5000.0, 1, 1), (5001.0, 1, 2), (1400.0, 1, 2), (1410.0, 2, 2)):
        seen = context(now, state, running, **half)
        seen.target_num_replicas = target
        wanted, state = policy(seen)
    assert wanted <= 2


def test_a_replica_may_have_reported_nothing_lately() -> None:
    assert called(WAIT)(context(101, {}, 1, accepted_s=[], batch_s=[]))[0] == 1


@pytest.mark.parametrize(("name", "metric"), [(WAIT, "accepted_s"), (PROCESSORS, "processor_s")])
def test_replicas_that_are_too_busy_to_report_are_not_given_back(name: str, metric: str) -> None:
    policy, state = called(name, down_after_s=60, idle_after_s=60), dict[str, Any]()
    for now in (100.0, 101.0):
        _, state = policy(context(now, state, 3, **{metric: [(98.0, 0.0), (100.0, 1.4)]}))
    for now in range(102, 230):
        wanted, state = policy(context(now, state, 3))
    assert wanted == 3
