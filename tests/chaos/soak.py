"""`make soak`: steady traffic for twenty minutes with a kill every two, and what grows meanwhile.

Prints what callers saw and the slopes of memory, descriptors and threads; writes JSON and a plot.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from matplotlib.figure import Figure

from tests.chaos.__main__ import PER_SECOND, photos, write_config
from tests.chaos.faults import haproxies
from tests.chaos.traffic import Traffic
from tests.servers import Server, serve

EVERY_S = 120
SAMPLE_EVERY_S = 10


class Sample(NamedTuple):
    """All processes of the service together."""

    at_s: float
    memory_mb: float
    descriptors: int
    threads: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--to", type=Path, default=Path("soak"), help="without its suffix")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), ingresses=2)
        with serve(Path(folder), config) as server:
            traffic = Traffic(server.url, photos(), PER_SECOND)
            with traffic:
                samples = watched(server, 60 * arguments.minutes)
    # Kills leave their mark for a while: what counts is the state before each.
    settled = [s for s in samples if s.at_s > EVERY_S and s.at_s % EVERY_S > EVERY_S / 2]
    result = {
        "minutes": arguments.minutes,
        "sent": len(traffic.outcomes),
        "failed": traffic.failed,
        "gap_s": round(traffic.longest_gap_s(), 2),
        "p99_s": round(traffic.p99_s(), 3),
        "slopes_per_hour": {
            name: round(slope(settled, name), 1)
            for name in Sample._fields
            if name != "at_s" and len(settled) > 1
        },
        "samples": [sample._asdict() for sample in samples],
    }
    arguments.to.with_suffix(".json").write_text(json.dumps(result) + "\n")
    plot(samples).savefig(arguments.to.with_suffix(".png"), dpi=120)
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}))
    return 0


def watched(server: Server, seconds: float) -> list[Sample]:
    """Samples, while a replica or HAProxy is killed every EVERY_S."""
    began = time.monotonic()
    samples = []
    victims = itertools.cycle(["Embedder", "Ingress", "HAProxy"])
    kill_at = began + EVERY_S
    while (now := time.monotonic()) < began + seconds:
        samples.append(sample(server, now - began))
        if now >= kill_at:
            kill_at += EVERY_S
            victim = next(victims)
            found = haproxies(server) if victim == "HAProxy" else server.replicas(victim)[:1]
            for process in found:
                process.kill()
        time.sleep(SAMPLE_EVERY_S)
    return samples


def sample(server: Server, at_s: float) -> Sample:
    memory_mb, descriptors, threads = 0.0, 0, 0
    for process in server.family():
        try:
            memory_mb += process.memory_full_info().pss / 1e6
            descriptors += process.num_fds()
            threads += process.num_threads()
        except psutil.NoSuchProcess:
            continue
    return Sample(at_s, memory_mb, descriptors, threads)


def slope(samples: list[Sample], name: str) -> float:
    """By least squares, in units an hour."""
    hours = [s.at_s / 3600 for s in samples]
    return float(np.polyfit(hours, [getattr(s, name) for s in samples], 1)[0])


def plot(samples: list[Sample]) -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    names: dict[str, Any] = {
        "memory_mb": "memory, MB (PSS)",
        "descriptors": "open descriptors",
        "threads": "threads",
    }
    for axes, (name, label) in zip(figure.subplots(3, sharex=True), names.items(), strict=True):
        axes.plot([s.at_s / 60 for s in samples], [getattr(s, name) for s in samples])
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        for kill in range(EVERY_S, int(samples[-1].at_s), EVERY_S):
            axes.axvline(kill / 60, color="0.8", zorder=0)
    axes.set_xlabel("minutes; grey: a model replica, an ingress replica or HAProxy was killed")
    return figure


if __name__ == "__main__":
    sys.exit(main())
