"""Image bytes from files below the configured roots, and from nowhere else. Blocking.

Leaves pixels to `decode` and threads to the caller.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from deployments.errors import ImageTooLarge, PathNotFound

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
# O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class ImageRoots:
    """The folders whose files requests may name, each file at most `max_bytes` bytes long.

    A path is walked one name at a time from an open folder (`dir_fd`) without following links, so
    nothing renamed or linked in the meantime leads outside (CWE-367). A root itself may be a link.
    """

    def __init__(self, roots: Sequence[Path], *, max_bytes: int) -> None:
        # Each root and the prefixes that absolute paths may have: as configured, and with its links
        # resolved.
        self._roots = tuple((r.absolute(), {r.absolute(), r.resolve()}) for r in roots)
        self._max_bytes = max_bytes

    def read(self, path: str) -> bytes:
        """All bytes of a file. A relative path is tried under each root in order; an absolute one
        must be inside a root.

        Raises ImageTooLarge, and PathNotFound for every other failure: missing, outside the
        roots, a link, not a regular file, not readable.
        """
        cause = f"outside the image roots: {path}"
        for root, prefixes in self._roots:
            names = _names_below(prefixes, path)
            if names:
                try:
                    return self._read_below(root, names)
                except OSError as error:
                    cause = f"{type(error).__name__}: {error.strerror}, {path} in {root}"
        raise PathNotFound(cause=cause)

    def _read_below(self, root: Path, names: list[str]) -> bytes:
        descriptor = _open_below(root, names)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file")
            if status.st_size > self._max_bytes:
                raise self._too_large()
            # One byte more than allowed, to notice a file that has grown since.
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._max_bytes:
            raise self._too_large()
        return data

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(
            f"The image file is larger than {self._max_bytes} bytes. Name a smaller one."
        )


def _names_below(prefixes: set[Path], path: str) -> list[str]:
    """The names that lead from a root to `path`; empty if the path may not be walked."""
    try:
        path.encode()  # a lone surrogate would stand for a raw byte of the file name
    except UnicodeEncodeError:
        return []
    if path.startswith("/"):
        below = [
            p for p in (f"{prefix}".rstrip("/") + "/" for prefix in prefixes) if path.startswith(p)
        ]
        if not below:
            return []
        path = path.removeprefix(below[0])
    names = [name for name in path.split("/") if name not in ("", ".")]
    # A trailing slash means a folder (POSIX: ENOTDIR).
    return [] if ".." in names or "\0" in path or path.endswith(("/", "/.")) else names


def _open_below(root: Path, names: list[str]) -> int:
    """A descriptor of the file; no other is left open. Raises OSError."""
    folder = os.open(root, _DIRECTORY)
    try:
        for name in names[:-1]:
            outer, folder = folder, os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(outer)
        return os.open(names[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
