"""Leaks that Ray Serve had: memory over many handle calls, and over many changes of replicas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.chaos.faults import Fault
from tests.chaos.job import called, deployed
from tests.servers import Server

CALLING_S = 90
CYCLES = 10

MOST_MB_PER_10_000_CALLS = 5.0
MOST_MB_PER_CYCLE = 1.0


def growth(longer: float = 1) -> tuple[Fault, ...]:
    """The faults of this module, `longer` times as long as in `make chaos`."""

    def many_calls(server: Server, config: Path) -> dict[str, Any]:
        (ingress,) = server.replicas("Ingress")
        calls, caller, answering = [], [], []
        for step in called(server, longer * CALLING_S):
            calls.append(step["calls"] / 10_000)
            caller.append(step["memory_mb"])
            answering.append(memory_mb(ingress))
        figures = {
            "caller_mb_per_10_000": slope(calls, caller),
            "ingress_mb_per_10_000": slope(calls, answering),
        }
        assert max(figures.values()) < MOST_MB_PER_10_000_CALLS, f"memory grows: {figures}"
        return {**figures, "calls": round(10_000 * calls[-1])}

    def many_cycles(server: Server, config: Path) -> dict[str, Any]:
        (controller,) = (p for p in server.family() if "ServeController" in " ".join(p.cmdline()))
        steps = [{"Embedder": {"num_replicas": n}} for n in (2, 1) * round(longer * CYCLES)]
        memory = [memory_mb(controller) for _ in deployed(server, config, steps)][1::2]
        mb_per_cycle = slope(range(len(memory)), memory)
        figures = {"controller_mb": [round(memory[0], 1), round(memory[-1], 1)]}
        assert mb_per_cycle < MOST_MB_PER_CYCLE, f"the controller grows: {memory}"
        return {**figures, "mb_per_cycle": mb_per_cycle, "cycles": len(memory)}

    return (
        Fault("handles called for minutes (ray#47870)", many_calls, 1),
        Fault("replicas added and removed again and again (ray#58815)", many_cycles, 1),
    )


def memory_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss / 1e6)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """By least squares, without the first third, in which pools and caches fill."""
    start = len(x) // 3
    return round(float(np.polyfit(x[start:], y[start:], 1)[0]), 2)
