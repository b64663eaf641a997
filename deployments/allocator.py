"""How this process gets memory for large blocks. Changes speed and size, never results."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


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
