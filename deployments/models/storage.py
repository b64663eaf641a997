"""Where raylens keeps what it makes of checkpoints: converted and compiled ones.

Knows nothing of what is in there. All of it may be deleted at any time, and is made anew.
"""

import os
from pathlib import Path

from deployments.models.checkpoint import CheckpointError


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
