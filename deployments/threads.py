"""How many processors there are for a pool of threads."""

import math
import os
from pathlib import Path
from typing import Literal


def thread_count(
    setting: int | Literal["auto"], *, quota_file: Path = Path("/sys/fs/cgroup/cpu.max")
) -> int:
    """A `threads` setting as a number: `auto` is the processors that this process may use.

    Those that its affinity names, or the fewer that a container's limit amounts to, rounded up:
    `quota_file` has the microseconds of processor time in a period (cgroup v2, cpu.max).
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
