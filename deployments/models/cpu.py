"""What this machine's processor has instructions for, as the kernel says. Knows no models."""

import hashlib
import platform
from functools import cache
from pathlib import Path

# The line that lists the instruction sets: `flags` on x86, `Features` on Arm.
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
    """`bfloat16` and `int8` if there are instructions for them; without, they are slower."""
    found = features() if found is None else found
    native = {"bfloat16": _BFLOAT16, "int8": _INT8}
    return frozenset(precision for precision, some in native.items() if some & found)


def cpu_key(found: frozenset[str] | None = None) -> str:
    """Equal on processors with the same instruction sets."""
    found = features() if found is None else found
    text = " ".join([platform.machine(), *sorted(found)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
