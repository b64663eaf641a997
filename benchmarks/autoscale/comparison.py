"""Policies beside each other on the traces: what is compared, and what the table says."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from benchmarks.autoscale import policies, traces
from benchmarks.autoscale.simulator import Outcome, Profile, Simulator
from benchmarks.autoscale.traces import Trace

# CLIP ViT-B/32 by OpenVINO in float32 on two processors: benchmarks/README.md has 36.8 images/s in
# batches of 1 and 48.7 in batches of 8 (Zen 5). A replica starts in 4.5 s, of which the bundled
# model takes 0.8 and this one 2.2.
CLIP = Profile(batch_s=0.0076, image_s=0.0196, max_batch_size=8, start_s=6.0)
OURS = "raylens"
# Serve's policy with the numbers of ongoing requests that it may aim at, and the delays that are
# its defaults or that somebody might choose who knows them.
TARGETS = (0.5, 0.75, 1.0, 2.0)
QUICK = {
    "metrics_interval_s": 1,
    "look_back_period_s": 5,
    "upscale_delay_s": 2,
    "downscale_delay_s": 120,
}


class Row(NamedTuple):
    """One policy on one trace."""

    trace: str
    policy: str
    requests: int
    outcome: Outcome


def configs() -> dict[str, dict[str, Any]]:
    """The `autoscaling_config` of each policy."""
    serves = {f"Serve, target {t:g}": policies.serves_default(t) for t in TARGETS}
    quick = {f"Serve quick, {t:g}": policies.serves_default(t) | QUICK for t in TARGETS}
    return {OURS: policies.ours(), **serves, **quick}


def all_traces(profile: Profile, *, day_s: float = 86_400) -> list[Trace]:
    image_s = profile.full_image_s
    day = traces.day(image_s, seconds=day_s)
    return [day, traces.steady(image_s), traces.flash_crowd(image_s), traces.bulk_job(image_s)]


def simulate(profile: Profile, trace: Trace, name: str) -> Row:
    be_quiet()
    policy = policies.Served(profile, configs()[name])
    begin = 3 if trace.name == "steady" else 1
    outcome = Simulator(profile, trace, policy, replicas=begin).run()
    return Row(trace.name, name, len(trace.items), outcome)


def be_quiet() -> None:
    warnings.simplefilter("ignore")  # Serve calls `metrics_interval_s` deprecated
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # a line for each decision


def table(rows: Sequence[Row]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column("trace")
    grid.add_column("policy", no_wrap=True)
    for heading in ("replica-hours", "p50 ms", "p99 ms", "refused", "changes", "most", "bulk s"):
        grid.add_column(heading, justify="right")
    for row in rows:
        outcome = row.outcome
        grid.add_row(
            f"{row.trace} ({row.requests:,})" if row.policy == OURS else "",
            row.policy,
            f"{outcome.replica_hours:.2f}",
            f"{1e3 * outcome.percentile(50):.0f}",
            f"{1e3 * outcome.percentile(99):.0f}",
            f"{outcome.refused:,}",
            f"{outcome.changes}",
            f"{outcome.most}",
            f"{outcome.bulk_s:.0f}" if outcome.bulk_s else "",
        )
    return grid


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What was promised: fewer replica-hours at the same p99, and fewer refusals in a crowd."""
    lines = []
    for kind in ("Serve", "Serve quick"):
        for trace, ours in ((row.trace, row) for row in rows if row.policy == OURS):
            others = [
                row for row in rows if row.trace == trace and row.policy.startswith(f"{kind},")
            ]
            p99 = ours.outcome.percentile(99)
            good = [row for row in others if row.outcome.percentile(99) <= p99]
            if good:
                best = min(good, key=lambda row: row.outcome.replica_hours)
                saved = 1 - ours.outcome.replica_hours / best.outcome.replica_hours
                lines.append(
                    f"{trace}: {abs(saved):.0%} {'fewer' if saved >= 0 else 'more'} replica-hours "
                    f"than {best.policy}"
                )
            else:
                best = min(others, key=lambda row: row.outcome.percentile(99))
                slower = best.outcome.percentile(99) / p99
                lines.append(
                    f"{trace}: no p99 of {kind} is as low; the best is {slower:.1f} times ours"
                )
            refused = min(row.outcome.refused for row in others)
            lines[-1] += f"; {ours.outcome.refused} refused, at least {refused} by {kind}"
    return lines
