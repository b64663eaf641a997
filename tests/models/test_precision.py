"""Precisions are tried in order, and dropped if their vectors are too far from float32's."""

import logging

import pytest

from deployments.models.precision import ImpossibleError, settle
from deployments.settings import WantedPrecision
from deployments.wire import Precision

COSINES = {"float32": 1.0, "bfloat16": 0.9995, "float16": 0.9999, "int8": 0.997}
BOTH = frozenset({"bfloat16", "int8"})


def tried(
    wanted: WantedPrecision, native: frozenset[str] = BOTH, /, **cosines: float
) -> tuple[list[str], str, str]:
    """What was tried, what was settled on, and why."""
    asked: list[str] = []

    def attempt(precision: Precision) -> float:
        asked.append(precision)
        cosine = {**COSINES, **cosines}[precision]
        if cosine < -1:
            raise ImpossibleError("of no reason")
        return cosine

    settled = settle(wanted, native, attempt)
    return asked, settled.precision, settled.reason


@pytest.mark.parametrize(
    ("wanted", "native", "expected"),
    [
        ("auto", BOTH, "bfloat16"),
        ("auto", {"int8"}, "float32"),
        ("auto", {"float16"}, "float16"),
        ("auto", set(), "float32"),
        ("fastest", BOTH, "int8"),
        ("fastest", {"bfloat16"}, "bfloat16"),
        ("int8", set(), "int8"),
        ("float32", BOTH, "float32"),
        ("bfloat16", set(), "bfloat16"),
    ],
)
def test_the_first_precision_that_passes_is_used(
    wanted: WantedPrecision, native: set[str], expected: str
) -> None:
    asked, precision, reason = tried(wanted, frozenset(native))
    assert precision == expected
    assert asked == [expected]
    assert reason.startswith(f"{expected}, because ")


@pytest.mark.parametrize(
    ("wanted", "failing", "expected"),
    [
        ("auto", {"bfloat16": 0.998}, ["bfloat16", "float32"]),
        ("fastest", {"int8": 0.99}, ["int8", "bfloat16"]),
        ("int8", {"int8": 0.99, "bfloat16": 0.9}, ["int8", "bfloat16", "float32"]),
        ("bfloat16", {"bfloat16": -1.0}, ["bfloat16", "float32"]),
        ("float16", {"float16": -2.0}, ["float16", "float32"]),
    ],
)
def test_a_precision_that_fails_gives_way_to_the_next_one(
    wanted: WantedPrecision, failing: dict[str, float], expected: list[str]
) -> None:
    asked, precision, _ = tried(wanted, **failing)
    assert asked == expected
    assert precision == expected[-1]


def test_the_reason_has_the_figures_of_what_failed_and_of_what_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    _, _, reason = tried("fastest", int8=0.9912)
    assert "int8 gives vectors with a cosine of 0.9912 with float32's, and 0.995" in reason
    assert reason.endswith("its cosine with float32 is 0.9995")
    assert "Trying bfloat16: int8 gives vectors with a cosine of 0.9912" in caplog.text


@pytest.mark.parametrize("wanted", ["auto", "float32"])
def test_even_float32_has_to_pass(wanted: WantedPrecision) -> None:
    with pytest.raises(ImpossibleError, match=r"float32 gives vectors with a cosine of 0\.9990"):
        tried(wanted, float32=0.999, bfloat16=0.5)
