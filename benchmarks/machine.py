"""Which machine gave the figures."""

import os
import platform
from pathlib import Path

from deployments.models.cpu import features

# What decides how fast a model runs, as the kernel calls it, the best first.
_DECIDING = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2")


def processor() -> str:
    """Its name, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine() -> str:
    """Processor, its instructions that matter, and how many there are."""
    has = ", ".join(name for name in _DECIDING if name in features())
    return f"{processor()} ({has}), {os.cpu_count()} processors"
