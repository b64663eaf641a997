"""What a full batch would take, told by those that were run."""

import pytest

from deployments.embedder.batch_time import BatchTime


def after(*batches: tuple[int, float]) -> BatchTime:
    time = BatchTime()
    for items, seconds in batches:
        time.took(items, seconds)
    return time


def test_before_the_first_batch_nothing_is_known() -> None:
    assert BatchTime().seconds(8) == 0


def test_small_batches_tell_what_a_full_one_takes() -> None:
    seen = after(*[(k, 0.010 + 0.002 * k) for k in (1, 2, 3, 1, 2)])
    assert seen.seconds(64) == pytest.approx(0.010 + 0.002 * 64)


def test_batches_of_one_size_count_by_the_item() -> None:
    assert after((1, 0.02), (1, 0.02)).seconds(8) == pytest.approx(0.16)


@pytest.mark.parametrize("seconds", [(0.05, 0.01), (0.01, 0.09)], ids=["falling", "steep"])
def test_noise_makes_no_item_free_and_no_batch_negative(seconds: tuple[float, float]) -> None:
    seen = after((1, seconds[0]), (2, seconds[1]))
    for items in (1, 8):
        assert 0 < seen.seconds(items) <= items * max(seconds)


def test_what_is_long_ago_counts_little() -> None:
    before = [(k, 1.0 * k) for k in (1, 8)] * 20
    now = [(k, 0.1 * k) for k in (1, 8)] * 200
    assert after(*before, *now).seconds(8) == pytest.approx(0.8, rel=0.05)
