"""How this process gets memory for large blocks. Changes speed and size, never results."""

import ctypes
import os

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4


def keep_large_blocks() -> bool:
    """Lets the process keep the memory of activations instead of asking the kernel every time.

    PyTorch has no cache for CPU memory: every activation is a malloc of some MB, for which glibc
    maps fresh pages and unmaps them again, and the kernel zeroes each 4 KB page on first touch.
    Measured with EfficientNet-Lite0 on two cores, images/s without and with this function:
    batch 1 64 and 102, 8 71 and 156, 16 79 and 132, 32 49 and 116; the process stays about
    130 MB (batch 8) to 400 MB (batch 32) larger.

    Two means, both needed. Blocks come from the heap and stay there; but the heap of a thread
    other than the first ends at 64 MB, so what does not fit is mapped in huge pages.
    Process-wide; call it before the first large tensor. Returns whether the heap could be set:
    not outside glibc (macOS, Alpine).
    """
    # Read by PyTorch (c10/core/impl/alloc_cpu.cpp) at its first CPU allocation of 2 MB or more.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    return _set(
        {
            _M_MMAP_MAX: 0,  # no mapping of its own for a large block
            _M_TRIM_THRESHOLD: 2**31 - 1,  # never give the top of the heap back
            _M_TOP_PAD: 64 * 1024 * 1024,  # grow in large steps
        }
    )


def give_large_blocks_back() -> bool:
    """Has every block of a megabyte or more mapped by itself, and given back when it is freed.

    By default glibc raises that threshold up to 32 MB as it sees such blocks freed, and then keeps
    them in heaps with holes: after an hour of large bodies a process is as large as their sum once
    was. Process-wide. Returns whether it could be set: not outside glibc.
    """
    return _set({_M_MMAP_THRESHOLD: 1024 * 1024, _M_TRIM_THRESHOLD: 16 * 1024 * 1024})


def trim() -> None:
    """Gives the kernel what lies free in the heaps; milliseconds, without Python's lock."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _set(settings: dict[int, int]) -> bool:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    taken = [libc.mallopt(option, value) == 1 for option, value in settings.items()]
    return all(taken)
