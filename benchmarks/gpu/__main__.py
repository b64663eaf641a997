"""`python -m benchmarks.gpu`: what a GPU does with raylens, in at most eight minutes.

Needs torch, transformers, numpy, pillow, pydantic-settings, simplejpeg and this checkout; no model
hub, no Ray. The service itself is measured by `make bench`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import decode, encoder, engine
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.device import Device
from benchmarks.gpu.report import Report
from benchmarks.gpu.run import Phase, Run, run_phases
from deployments import torchvision_operators

# What is surely wanted first. Compiling, which may take any time, last.
PHASES = (
    Phase("encoder", 0.3, encoder.eager),
    Phase("gate", 0.1, encoder.gate),
    Phase("engine", 0.2, engine.measure),
    Phase("decode", 0.1, decode.measure),
    Phase("compile: on", 0.1, encoder.graphs_of_cast),
    Phase("encoder", 0.2, encoder.compiled),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 if a row failed for another reason than time and memory, or 2 without a GPU."""
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to keep the figures, row by row")
    # A minute less than eight: imports come before it, and what runs in C is not interrupted.
    parser.add_argument("--seconds", type=float, default=420.0, help="how long it may take")
    parser.add_argument("--device", default="cuda:0", help="cuda:0 or, with --quick, cpu")
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the script")
    options = parser.parse_args(arguments)
    budget = Budget(options.seconds)
    if options.device == "cpu":
        if not options.quick:
            print(
                "On a CPU it has nothing to measure; --device cpu needs --quick.", file=sys.stderr
            )
            return 2
    elif not torch.cuda.is_available():
        print(
            "This process sees no GPU that torch can use. To try the script itself: "
            "python -m benchmarks.gpu --device cpu --quick",
            file=sys.stderr,
        )
        return 2
    torchvision_operators.declare()
    torch.backends.cudnn.allow_tf32 = False  # as Encoder.load has it
    device = Device(options.device)
    report = Report({**device.facts(), "quick": options.quick}, options.json)
    run = Run(device, report, quick=options.quick, say=lambda line: print(line, file=sys.stderr))
    run_phases(run, PHASES, budget)
    print(report.tables())
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
