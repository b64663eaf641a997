"""Probabilities follow the model's own rule."""

from dataclasses import replace

import numpy as np
import pytest

from deployments.service.vectors import probabilities
from tests.fakes import TEXT


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_probabilities_do_not_overflow(score: str) -> None:
    rule = replace(TEXT, score=score, logit_scale=1e4, logit_bias=-10.0)  # type: ignore[arg-type]
    found = probabilities(np.array([[1.0, -1.0, 0.5]], np.float32), rule)
    assert np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(0)
