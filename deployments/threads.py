"""How many threads a pool should have."""

import math
import os
from pathlib import Path
from typing import Literal


def thread_count(
    setting: int | Literal["auto"], *, quota_file: Path = Path("/sys/fs/cgroup/cpu.max")
) -> int:
    """A `threads` setting as a number: `auto` is the number of processors this process may use.

    That is its CPU affinity or, if lower, the container's CPU limit, rounded up. `quota_file` has
    that limit as microseconds of processor time per period (cgroup v2, cpu.max).
    """
    if setting != "auto":
        return setting
    affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    processors = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota_us, period_us = map(int, quota_file.read_text().split())
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return processors
    return max(1, min(processors, math.ceil(quota_us / period_us)))
