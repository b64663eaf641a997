"""The device that is measured: what it is, when it is done, how much memory it took."""

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.machine import processor


class Device:
    """`cuda:0`, or `cpu`, which has neither graphs nor a memory of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_gpu = name != "cpu"

    def wait(self) -> None:
        """Until all that was launched is done."""
        if self.is_gpu:
            torch.cuda.synchronize(self.name)

    def forget_peak(self) -> None:
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.name)

    def peak_mb(self) -> float | None:
        """What torch had taken from the GPU at most since `forget_peak`."""
        if not self.is_gpu:
            return None
        return round(torch.cuda.max_memory_reserved(self.name) / 1e6)

    def facts(self) -> dict[str, Any]:
        """What figures depend on."""
        facts = {
            "device": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        }
        if self.is_gpu:
            properties = torch.cuda.get_device_properties(self.name)
            facts |= {
                "processor": facts["device"],
                "device": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "memory_mb": round(properties.total_memory / 1e6),
                "multiprocessors": properties.multi_processor_count,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "driver": _driver(),
            }
        return facts


def _driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    try:
        words = path.read_text().partition("\n")[0].split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
