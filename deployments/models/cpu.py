"""What this machine's processor computes in by itself, from the kernel. Knows no model."""

import hashlib
import platform
from functools import cache
from pathlib import Path

# The kernel's names of what matters: x86 has `flags`, Arm `Features`.
_LINES = ("flags", "Features")
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}


@cache
def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's instruction sets, as Linux calls them; none on other systems."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() in _LINES:
            return frozenset(values.split())
    return frozenset()


def native_precisions(found: frozenset[str] | None = None) -> frozenset[str]:
    """`bfloat16` and `int8`, where there are instructions for them: what lacks them is slower."""
    found = features() if found is None else found
    native = {"bfloat16": _BFLOAT16, "int8": _INT8}
    return frozenset(precision for precision, some in native.items() if some & found)


def cpu_key(found: frozenset[str] | None = None) -> str:
    """The same on processors that compute alike."""
    found = features() if found is None else found
    text = " ".join([platform.machine(), *sorted(found)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
