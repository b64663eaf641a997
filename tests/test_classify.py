"""Labels' vectors are kept, within a bound; probabilities follow the model's own rule."""

from dataclasses import replace

import numpy as np
import pytest

from deployments.classify import LabelCache
from deployments.vectors import probabilities
from tests.fakes import TEXT

VECTOR = np.ones(4, np.float32)
SIZE = VECTOR.nbytes + 4 * len("a")


def test_the_least_recently_used_label_goes_first() -> None:
    cache = LabelCache(max_bytes=2 * SIZE)
    for name in "ab":
        cache.put(("m", None, name), VECTOR)
    cache.get(("m", None, "a"))
    cache.put(("m", None, "c"), VECTOR)
    assert [cache.get(("m", None, name)) is None for name in "abc"] == [False, True, False]


def test_a_label_put_twice_counts_once() -> None:
    cache = LabelCache(max_bytes=2 * SIZE)
    for name in "abb":
        cache.put(("m", None, name), VECTOR)
    assert cache.get(("m", None, "a")) is not None


def test_the_same_label_of_two_models_is_two_labels() -> None:
    cache = LabelCache()
    cache.put(("m", None, "a"), VECTOR)
    assert cache.get(("n", None, "a")) is None


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_probabilities_do_not_overflow(score: str) -> None:
    rule = replace(TEXT, score=score, logit_scale=1e4, logit_bias=-10.0)  # type: ignore[arg-type]
    found = probabilities(np.array([[1.0, -1.0, 0.5]], np.float32), rule)
    assert np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(0)


def test_a_kept_vector_does_not_keep_the_batch_that_it_came_in() -> None:
    cache = LabelCache()
    cache.put(("m", None, "a"), np.ones((512, 4), np.float32)[7])
    found = cache.get(("m", None, "a"))
    assert found is not None
    assert found.base is None
