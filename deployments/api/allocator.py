"""Tunes glibc's malloc for large blocks. Changes speed and memory use, never results."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def give_large_blocks_back() -> bool:
    """Maps every block of a megabyte or more separately, and unmaps it when it is freed.

    By default glibc raises that threshold, up to 32 MB, when such blocks are freed, and then keeps
    them in fragmented heaps: after an hour of large bodies the process stays at its peak size.
    Process-wide. Returns whether it took effect; without glibc it does not.
    """
    return _set({_M_MMAP_THRESHOLD: 1024 * 1024, _M_TRIM_THRESHOLD: 16 * 1024 * 1024})


def trim() -> None:
    """Returns free heap memory to the kernel. Takes milliseconds, without the GIL."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _set(settings: dict[int, int]) -> bool:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    taken = [libc.mallopt(option, value) == 1 for option, value in settings.items()]
    return all(taken)
