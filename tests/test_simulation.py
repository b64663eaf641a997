"""The simulated queues against queueing theory."""

import math
import statistics

import pytest

from raylens.simulation import Simulation


def took_s(
    replicas: int, busy: float, *, ingresses: int = 1, batch_size: int = 1, images: int = 1
) -> list[float]:
    """Seconds that requests take, where a batch of any size takes one second."""
    simulation = Simulation(
        replicas, ingresses, ingress_s=0, batch_size=batch_size, batch_s=lambda _: 1.0
    )
    return simulation.run(50_000, busy * replicas * batch_size / images, images)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_the_mean_time_at_one_server_is_that_of_pollaczek_and_khinchine(busy: float) -> None:
    expected = 1 + busy / (2 * (1 - busy))  # a constant time of service: M/D/1
    assert statistics.fmean(took_s(1, busy)) == pytest.approx(expected, rel=0.05)


def test_replicas_share_the_work_and_ingresses_know_their_own_requests_alone() -> None:
    one, four, apart = took_s(1, 0.8), took_s(4, 0.8), took_s(4, 0.8, ingresses=1000)
    assert statistics.fmean(four) < 0.6 * statistics.fmean(one)
    assert statistics.fmean(apart) == pytest.approx(statistics.fmean(one), rel=0.1)


def test_what_waits_goes_into_one_batch() -> None:
    """However many come, the next batch has them, so only the rest of one batch is waited for."""
    times = took_s(1, 0.5, batch_size=1000)
    assert statistics.fmean(times) == pytest.approx(1.5, rel=0.02)
    assert 0.999 < min(times) <= max(times) < 2.001


def test_a_request_ends_with_its_last_image() -> None:
    times = took_s(1, 0.01, batch_size=8, images=20)
    assert statistics.median(times) == pytest.approx(math.ceil(20 / 8))


def test_the_same_requests_take_the_same_time() -> None:
    assert took_s(3, 0.7) == took_s(3, 0.7)


def test_requests_wait_for_the_ingress_too() -> None:
    simulation = Simulation(50, 1, ingress_s=0.5, batch_size=1, batch_s=lambda _: 0.001)
    took = simulation.run(50_000, 0.6, images=2)  # a second of the ingress for each
    assert statistics.fmean(took) == pytest.approx(1 + 0.6 / (2 * 0.4), rel=0.05)
