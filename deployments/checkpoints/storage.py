"""Where raylens keeps converted and exported checkpoints.

Knows nothing of their contents. All of it may be deleted at any time, and is then made again.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.checkpoints.checkpoint import CheckpointError


def user_cache() -> Path:
    """$XDG_CACHE_HOME, or ~/.cache. Raises CheckpointError for a user without a home folder."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # the XDG specification says to ignore anything else
        return named
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise CheckpointError(
            "this user has no home folder to keep models in; set XDG_CACHE_HOME to a "
            "folder that this process may write to"
        ) from error


@contextmanager
def locked(name: Path) -> Iterator[None]:
    """Admits one process at a time; the kernel releases the lock of one that is killed.

    Raises OSError if `name` cannot be written.
    """
    name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with name.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A new folder that is flushed to the disk and renamed to `folder` at the end, or removed if an
    error is raised. For one process at a time: the leftovers of one that was killed are removed.
    """
    prefix = f".{folder.name}-"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        yield aside
        for file in aside.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one, or one to be replaced
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
