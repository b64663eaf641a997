"""The precision that a model runs in: a faster one, if the vectors stay what they are.

Each candidate is tried on real photos and sentences, and rejected if its vectors are not like those
of float32. Knows neither torch nor OpenVINO, which are left to `settle`'s callers.
"""

import logging
from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

from deployments.settings import WantedPrecision
from deployments.wire import Precision

logger = logging.getLogger("ray.serve")

# The least cosine with the vector that torch gives in float32.
NEEDED_COSINE: dict[Precision, float] = {
    "float32": 0.9999,
    "bfloat16": 0.999,
    "float16": 0.999,
    "int8": 0.995,
}


class ImpossibleError(Exception):
    """A precision is not possible here; the message says why, as a clause."""


class Settled(NamedTuple):
    """The precision that a model runs in, and why, as `/v1/models` shows it."""

    precision: Precision
    reason: str


def settle(
    wanted: WantedPrecision, native: Set[str], attempt: Callable[[Precision], float]
) -> Settled:
    """The first precision that passes.

    `native` are those that the device has instructions for, besides float32. `attempt` runs the
    model in a precision and returns the least cosine with float32's vectors, or raises
    ImpossibleError. So does this function if not even float32 passes.
    """
    failed = ""
    for precision, why in _candidates(wanted, native):
        if failed:
            level = logging.INFO if wanted == "auto" else logging.WARNING
            logger.log(level, f"Trying {precision}: {failed}.")
        try:
            cosine = attempt(precision)
        except ImpossibleError as error:
            failed = f"{precision} is not possible: {error}"
            continue
        if cosine >= NEEDED_COSINE[precision]:
            return Settled(
                precision,
                f"{precision}, because {failed or why}"
                + ("" if precision == "float32" else f"; its cosine with float32 is {cosine:.4f}"),
            )
        failed = (
            f"{precision} gives vectors with a cosine of {cosine:.4f} with float32's, and "
            f"{NEEDED_COSINE[precision]} is needed"
        )
    raise ImpossibleError(failed)


def _candidates(wanted: WantedPrecision, native: Set[str]) -> Iterator[tuple[Precision, str]]:
    """What to try, in order, each with the reason as a clause."""
    if wanted in ("bfloat16", "float16", "int8"):
        yield wanted, "model.precision says so"
    if wanted == "fastest" and "int8" in native:
        yield "int8", "the processor has instructions for it, and model.precision is fastest"
    if wanted in ("auto", "fastest", "int8"):
        for precision in ("bfloat16", "float16"):
            if precision in native:
                yield precision, "the device has instructions for it"
    why = "the device has instructions for nothing faster"
    yield "float32", "model.precision says so" if wanted == "float32" else why
