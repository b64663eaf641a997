"""What the answers of model replicas tell of how much waits there, and for how long."""

import pytest

from deployments.embedder.pace import FRESH_S, GONE_S, Pace
from deployments.wire import QueueState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def test_nothing_is_known_at_first(pace: Pace) -> None:
    assert pace.item_s == pace.others_s == 0


def test_replicas_work_side_by_side(pace: Pace) -> None:
    pace.note(QueueState("a", waiting=10, item_s=0.1))
    pace.note(QueueState("b", waiting=20, item_s=0.1))
    assert pace.item_s == pytest.approx(0.05)
    assert pace.others_s == pytest.approx(1.5)


def test_what_this_ingress_replica_has_sent_is_not_others_work(pace: Pace) -> None:
    with pace.sent(8):
        pace.note(QueueState("a", waiting=10, item_s=0.1))
        assert pace.others_s == pytest.approx(0.2)
        with pace.sent(8):
            assert pace.others_s == 0


def test_an_old_answer_says_nothing_of_what_waits_but_something_of_the_speed(
    pace: Pace, clock: Clock
) -> None:
    pace.note(QueueState("a", waiting=10, item_s=0.1))
    clock.now += FRESH_S + 0.1
    assert pace.others_s == 0
    assert pace.item_s == pytest.approx(0.1)


def test_a_replica_that_is_gone_does_not_count(pace: Pace, clock: Clock) -> None:
    pace.note(QueueState("a", waiting=10, item_s=0.1))
    clock.now += GONE_S + 0.1
    pace.note(QueueState("b", waiting=10, item_s=0.2))
    assert pace.item_s == pytest.approx(0.2)


def test_before_its_first_batch_a_replica_has_no_speed(pace: Pace) -> None:
    pace.note(QueueState("a", waiting=10))
    assert pace.item_s == 0
