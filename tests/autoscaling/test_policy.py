"""The number of replicas, second by second, for deployments of which all is known."""

import math

import pytest

from deployments.autoscaling.policy import Memory, Observation, ScalingPolicy

STEP_S = 0.5


class Deployment:
    """Replicas that take `start_s` to start, and as much work as arrives."""

    def __init__(self, policy: ScalingPolicy, *, start_s: float = 4.0, running: int = 1) -> None:
        self.policy = policy
        self.start_s = start_s
        self.memory = Memory()
        self.now = 1000.0
        self.ready = [0.0] * running
        self.backlog_s = 0.0
        self.targets: list[int] = []

    def run(self, seconds: float, demand: float, refused: float = 0.0) -> list[int]:
        """The targets meanwhile."""
        begin = len(self.targets)
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            running = sum(ready <= self.now for ready in self.ready)
            self.backlog_s = max(0.0, self.backlog_s + (demand - running) * STEP_S)
            seen = Observation(
                now=self.now,
                running=running,
                target=len(self.ready),
                demand=demand,
                refused=refused,
                backlog_s=self.backlog_s,
                batch_s=0.2,
            )
            wanted = self.policy.replicas(seen, self.memory)
            self.ready += [self.now + self.start_s] * (wanted - len(self.ready))
            del self.ready[wanted:]
            self.targets.append(wanted)
        return self.targets[begin:]


def test_a_steady_load_keeps_as_many_replicas_as_it_needs() -> None:
    assert set(Deployment(ScalingPolicy(), running=3).run(600, demand=2.0)) == {3}


def test_noise_changes_nothing() -> None:
    deployment = Deployment(ScalingPolicy(), running=3)
    for number in range(200):
        deployment.run(1, demand=2.0 + (0.25 if number % 2 else -0.25))
    assert set(deployment.targets) == {3}


def test_a_step_brings_what_it_needs_within_two_seconds_and_little_more() -> None:
    deployment = Deployment(ScalingPolicy())
    deployment.run(30, demand=0.4)
    after = deployment.run(60, demand=2.5)
    assert after[3] >= 4
    assert max(after) <= 6
    assert deployment.run(120, demand=2.5)[-1] == 4


def test_items_that_wait_prove_that_a_step_is_no_noise() -> None:
    deployment = Deployment(ScalingPolicy())
    deployment.run(30, demand=0.4)
    deployment.memory.noise = 0.3  # as after an uneven hour
    assert max(deployment.run(3, demand=1.5)) == 2


def test_a_small_overload_shows_in_the_backlog() -> None:
    deployment = Deployment(ScalingPolicy(utilisation=1.0))
    deployment.run(300, demand=0.97)
    assert set(deployment.targets) == {1}
    deployment.backlog_s = 2.0
    assert 2 in deployment.run(10, demand=1.0)


def test_a_burst_that_is_done_before_a_replica_would_have_started_brings_none() -> None:
    deployment = Deployment(ScalingPolicy(), start_s=10)
    deployment.run(30, demand=0.1)
    deployment.backlog_s = 2.0
    assert set(deployment.run(30, demand=0.1)) == {1}


def test_refused_work_counts_up_to_three_times_what_was_accepted() -> None:
    for refused, least, most in ((1.0, 3, 5), (3.0, 6, 11), (100.0, 6, 11)):
        deployment = Deployment(ScalingPolicy())
        deployment.run(30, demand=0.5)
        assert least <= max(deployment.run(5, demand=1.0, refused=refused)) <= most


def test_a_load_that_grows_is_met_before_it_is_there() -> None:
    slow, fast = (Deployment(ScalingPolicy(), start_s=s) for s in (1.0, 30.0))
    for deployment in (slow, fast):
        deployment.run(60, demand=0.5)
        for second in range(30):
            deployment.run(1, demand=0.5 + 0.1 * second)
    assert slow.memory.start_s is not None
    assert max(slow.targets) >= 4
    assert max(fast.targets) > max(slow.targets)


def test_replicas_are_given_back_after_a_while() -> None:
    deployment = Deployment(ScalingPolicy(down_after_s=60), running=4)
    deployment.run(30, demand=2.9)
    after = deployment.run(120, demand=0.5)
    assert after[round(55 / STEP_S)] == 4
    assert after[-1] == 1
    assert after == sorted(after, reverse=True)


def test_a_load_at_a_threshold_does_not_thrash() -> None:
    deployment = Deployment(ScalingPolicy(down_after_s=20), running=2)
    for number in range(100):
        deployment.run(30, demand=1.5 + (0.06 if number % 2 else -0.06))
    changes = sum(a != b for a, b in zip(deployment.targets, deployment.targets[1:], strict=False))
    assert changes <= 1


def test_the_start_time_is_measured() -> None:
    deployment = Deployment(ScalingPolicy(start_s=60), start_s=6)
    deployment.run(10, demand=0.5)
    deployment.run(30, demand=1.5)
    assert deployment.memory.start_s == pytest.approx(6, abs=2 * STEP_S)


def test_the_last_replica_is_given_back_when_nothing_has_come_for_long() -> None:
    deployment = Deployment(ScalingPolicy(down_after_s=60, idle_after_s=300))
    deployment.run(30, demand=0.5)
    after = deployment.run(400, demand=0.0)
    assert after[round(290 / STEP_S)] == 1
    assert after[-1] == 0


def test_without_replicas_it_leaves_the_first_to_serve() -> None:
    deployment = Deployment(ScalingPolicy(idle_after_s=30), running=0)
    assert set(deployment.run(60, demand=0.0)) == {0}
    deployment.ready = [deployment.now + 40]
    assert set(deployment.run(60, demand=0.0)) == {1}
    assert deployment.run(30, demand=0.0)[-1] == 0


def test_a_policy_that_knows_nothing_yet_keeps_what_there_is() -> None:
    """Such as after a restart of Serve's controller, before replicas have reported anything."""
    deployment = Deployment(ScalingPolicy(down_after_s=60), running=4)
    assert set(deployment.run(50, demand=0.0)) == {4}
    assert deployment.run(80, demand=0.2)[-1] == 1


def test_a_replica_that_took_long_to_start_is_not_idle_at_once() -> None:
    deployment = Deployment(ScalingPolicy(idle_after_s=60), running=0)
    deployment.run(10, demand=0.0)
    deployment.now += 300  # Serve starts one for a caller, and calls no policy meanwhile
    deployment.ready = [deployment.now]
    assert set(deployment.run(50, demand=0.0)) == {1}


@pytest.mark.parametrize("utilisation", [0.0, -1.0, 75.0])
def test_a_utilisation_is_a_fraction_of_the_time(utilisation: float) -> None:
    with pytest.raises(ValueError, match="a fraction of the time"):
        ScalingPolicy(utilisation=utilisation)


def test_a_step_soon_after_another_is_met_as_quickly() -> None:
    deployment = Deployment(ScalingPolicy())
    deployment.run(60, demand=0.0)
    deployment.run(30, demand=0.45)
    assert 2 in deployment.run(2, demand=1.5)


@pytest.mark.parametrize("name", ["wait_s", "start_s", "down_after_s", "idle_after_s"])
@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_times_are_finite_and_never_below_0(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is in seconds"):
        ScalingPolicy(**{name: seconds})


def test_times_of_0_are_a_wish_for_as_many_replicas_as_can_be() -> None:
    policy = ScalingPolicy(wait_s=0, start_s=0)
    seen = Observation(now=0, running=1, target=1, demand=0.5, backlog_s=3, batch_s=0.1)
    assert policy.replicas(seen, Memory()) > 1
