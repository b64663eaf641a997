"""What is said of the stages' speed follows from what they spent."""

import time

import pytest

from deployments.bulk.stages import BusyClock, Spent, stages
from raylens.cli.bulk import report


def test_a_stage_that_waits_is_faster_than_it_looks() -> None:
    spent = [
        Spent("decode", 100, busy_s=2.0, began=0.0, ended=10.0),
        Spent("decode", 100, busy_s=2.0, began=0.0, ended=10.0),
        Spent("model", 200, busy_s=9.5, began=1.0, ended=11.0),
    ]
    decode, model = stages([s._asdict() for s in spent], workers={"decode": 2, "model": 1})
    assert (decode.rows, decode.images_per_s) == (200, 100)
    assert decode.busy == pytest.approx(0.2)
    assert model.rows == 200
    assert model.busy == pytest.approx(0.95)
    assert model.images_per_s == pytest.approx(21.05, abs=0.01)


def test_the_clock_counts_what_overlaps_once_and_waiting_not_at_all() -> None:
    clock = BusyClock()
    with clock, clock:
        time.sleep(0.05)
    time.sleep(0.1)
    with clock:
        time.sleep(0.02)
        part = clock.take()
        time.sleep(0.02)
    assert 0.06 < part < 0.1
    assert 0.015 < clock.take() < 0.05


def test_the_report_names_the_bottleneck() -> None:
    from deployments.bulk.pipeline import Summary
    from deployments.bulk.stages import Stage

    found = [Stage("decode", 200, 2, 100.0, 0.2), Stage("model", 200, 1, 21.1, 0.95)]
    lines = report(Summary(200, 3, 50, 1, 10.0, found)).splitlines()
    assert lines[0] == (
        "200 images in 10.0 s, 20.0 images/s; 3 failed; 50 were there before; "
        "1 other files passed over"
    )
    assert [line.endswith("the bottleneck") for line in lines[1:]] == [False, True]
