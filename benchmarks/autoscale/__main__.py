"""`python -m benchmarks.autoscale`: raylens's scaling policy beside Serve's default one, simulated.

Four traces of a model deployment, always the same, in less than two minutes. `--real` runs a small
one through a real service (three minutes, two processors) and compares what the simulator says.
`--plan` compares `raylens plan` with a real service of one to three replicas.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console

from benchmarks.autoscale import comparison, planned, real
from benchmarks.autoscale.comparison import CLIP


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.autoscale", description=__doc__)
    parser.add_argument("--real", action="store_true", help="measure a service, and simulate it")
    parser.add_argument("--plan", action="store_true", help="measure services, and plan them")
    parser.add_argument("--day-s", type=float, default=86_400, help="seconds in the day")
    options = parser.parse_args(arguments)
    comparison.be_quiet()
    if options.real:
        real.main()
        return 0
    if options.plan:
        planned.main()
        return 0
    jobs = [
        (CLIP, t, name)
        for t in comparison.all_traces(CLIP, day_s=options.day_s)
        for name in comparison.configs()
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        rows = [*pool.map(comparison.simulate, *zip(*jobs, strict=True))]
    Console(width=120).print(comparison.table(rows), *comparison.verdicts(rows), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
