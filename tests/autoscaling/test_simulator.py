"""The simulator against what is known of queues, and the policies in it on short traces."""

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.autoscale import comparison, policies, traces
from benchmarks.autoscale.simulator import Outcome, Policy, Profile, Simulator, State
from benchmarks.autoscale.traces import Bulk, Trace

PROFILE = Profile(batch_s=0.1, image_s=0.1, max_batch_size=4, start_s=5.0)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trace(
    *arrivals_s: float, items: int = 1, seconds: float = 60, bulk: Bulk | None = None
) -> Trace:
    at = np.array(arrivals_s)
    return Trace("test", at, np.full(len(at), items), seconds, bulk)


def fixed(number: int) -> Policy:
    return lambda state: number


def run(wanted: Trace, policy: Policy, replicas: int = 1) -> Outcome:
    return Simulator(PROFILE, wanted, policy, replicas=replicas).run()


def test_a_lone_request_takes_as_long_as_its_batch() -> None:
    outcome = run(trace(1.0), fixed(1))
    assert outcome.latencies_s == pytest.approx([0.2])
    assert outcome.replica_s == pytest.approx(60)
    assert (outcome.changes, outcome.refused) == (0, 0)


def test_what_waits_together_shares_a_batch() -> None:
    outcome = run(trace(1.0, 1.05, 1.1, 1.15), fixed(1))
    assert outcome.latencies_s == pytest.approx([0.2, 0.55, 0.5, 0.45])


def test_a_queue_with_random_arrivals_waits_as_long_as_theory_says() -> None:
    """M/D/1: rho / (2 (1 - rho)) service times in the queue."""
    profile = Profile(batch_s=0.0, image_s=0.1, max_batch_size=1, start_s=5.0, max_wait_s=60)
    arrivals = np.cumsum(np.random.default_rng(0).exponential(0.1 / 0.7, 40_000))
    seconds = float(arrivals[-1])
    wanted = Trace("theory", arrivals, np.ones(len(arrivals), int), seconds)
    outcome = Simulator(profile, wanted, fixed(1), replicas=1).run()
    expected_s = 0.1 * (1 + 0.7 / (2 * 0.3))
    assert float(np.mean(outcome.latencies_s)) == pytest.approx(expected_s, rel=0.05)


def test_what_would_wait_too_long_is_refused() -> None:
    outcome = run(trace(*[1.0] * 50), fixed(1))  # each is an eighth of a second in full batches
    assert outcome.refused == 50 - 41
    assert max(outcome.latencies_s) <= PROFILE.max_wait_s + 0.5


def test_a_replica_costs_from_the_decision_and_serves_once_it_has_started() -> None:
    outcome = run(trace(*np.arange(0, 50, 0.05)), lambda state: 2)
    assert outcome.changes == 1
    assert outcome.replica_s == pytest.approx(60 + 59)


def test_a_replica_that_leaves_finishes_what_it_has() -> None:
    outcome = run(trace(*[0.9] * 16), fixed(1), replicas=2)
    assert len(outcome.latencies_s) == 16
    assert 61 <= outcome.replica_s <= 64


def test_without_replicas_calls_wait_for_one() -> None:
    def wakes(state: State) -> int:
        return 1 if state.waiting or state.target else 0

    outcome = run(trace(10.2), wakes, replicas=0)
    assert outcome.latencies_s == pytest.approx([0.8 + PROFILE.start_s + 0.2])


def test_interactive_callers_pass_a_bulk_job() -> None:
    bulk = Bulk(begins_s=1.0, requests=20, items=32, under_way=1)
    outcome = run(trace(*np.arange(2, 20, 1.0), bulk=bulk), fixed(1))
    assert max(outcome.latencies_s) < 1.1
    assert outcome.bulk_s > 80 / 4


def test_the_policy_under_test_is_the_one_that_configs_name() -> None:
    served = policies.Served(PROFILE, policies.ours())
    name = served.config.policy.policy_function
    assert name == "deployments.autoscaling.serve:WaitPolicy"


def test_ours_costs_less_and_refuses_less_than_serves_default_policy() -> None:
    """On an hour of the day and a crowd; `python -m benchmarks.autoscale` has all of it."""
    profile = dataclasses.replace(comparison.CLIP, tick_s=1.0)
    image_s = profile.full_image_s
    hour = traces.day(image_s, seconds=3600)
    crowd = traces.flash_crowd(image_s)
    ours, theirs = comparison.OURS, "Serve, target 0.5"
    rows = {
        (name, wanted.name): comparison.simulate(profile, wanted, name).outcome
        for name in (ours, theirs)
        for wanted in (hour, crowd)
    }
    assert rows[ours, hour.name].replica_s < 0.8 * rows[theirs, hour.name].replica_s
    assert rows[ours, crowd.name].refused <= rows[theirs, crowd.name].refused / 2


def test_every_run_has_the_same_traces() -> None:
    first, second = (comparison.all_traces(comparison.CLIP, day_s=600) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.arrivals_s, b.arrivals_s)
        assert np.array_equal(a.items, b.items)
