"""One run: phases with shares of the time, and rows that may fail without ending it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from benchmarks.gpu.budget import Budget, OutOfTimeError, ended_after
from benchmarks.gpu.device import Device
from benchmarks.gpu.models import GEOMETRIES, TINY, Geometry
from benchmarks.gpu.report import Report, Row, label
from deployments.checkpoints.checkpoint import first_line
from deployments.wire import NoMemoryError


class Run:
    """What all phases share."""

    def __init__(
        self,
        device: Device,
        report: Report,
        *,
        quick: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`quick` measures tiny models for a moment each: it proves that the script works."""
        self.device = device
        self.report = report
        self.quick = quick
        self.geometries: Sequence[Geometry] = TINY if quick else GEOMETRIES
        self.batches = (1, 2) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.row_s = 0.01 if quick else 0.3
        self.chosen: dict[str, str] = {}
        """The precision that passed the gate, by geometry."""
        self.failed = False
        """Whether a row has failed for another reason than time or memory."""
        self._say = say

    def row(
        self, named: Row, measure: Callable[[], Row], *, budget: Budget, needs_s: float = 0.0
    ) -> Row | None:
        """Adds a row with `measure`'s figures and the memory it took, or with why there are none;
        returns the figures if there are any.

        `needs_s` is how long it may take by what is known: it does not begin if there is less.
        """
        left = budget.left()
        if left <= needs_s:
            self.without(named, f"it needs some {needs_s:.1f} s, and {left:.1f} s are left")
            return None
        without = ""
        try:
            self.device.forget_peak()
            with ended_after(left):
                figures = measure()
        except (torch.cuda.OutOfMemoryError, NoMemoryError):
            without = "the GPU has no memory for it"
        except OutOfTimeError:
            without = f"it took longer than the {left:.1f} s that were left"
        except Exception as error:
            self.failed = True
            without = f"{type(error).__name__}: {first_line(error)}"
        if without:  # outside, because the traceback holds what was computed
            self.without(named, without)
            return None
        row = {**named, **figures}
        peak = self.device.peak_mb()
        if peak is not None:
            row["peak_mb"] = peak
        self.report.add(row)
        self._say(f"{label(named)}: " + ", ".join(f"{k} {v}" for k, v in figures.items()))
        return figures

    def without(self, named: Row, why: str) -> None:
        self.report.add({**named, "without": why})
        self._say(f"{label(named)}: not measured: {why}")


class Phase(NamedTuple):
    name: str
    share: float
    """Of the time, in proportion to those of the phases to come."""
    measure: Callable[[Run, Budget], None]


def run_phases(run: Run, phases: Sequence[Phase], budget: Budget) -> None:
    """Each with its share of the time that is left, so that what one saves goes to the others."""
    for number, phase in enumerate(phases):
        part = budget.part(phase.share / sum(later.share for later in phases[number:]))
        try:
            phase.measure(run, part)
        except Exception as error:  # outside its rows
            run.failed = True
            run.without({"phase": phase.name}, f"{type(error).__name__}: {first_line(error)}")
    run.report.finish()
