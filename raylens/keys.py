"""Makes, lists and revokes API keys in a service's `auth.keys_file`. Stores only hashes.

The file has a line of JSON for each key: name, sha256 and the key's limits.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# So that a leaked key is recognisable, in a log or a repository.
PREFIX = "rl_"

# What the service accepts.
NAME = r"[A-Za-z0-9._-]{1,64}"
RATE = r"[1-9][0-9]{0,8}/(second|minute|hour|day)"


class KeysError(Exception):
    """The key file cannot be read or changed as asked; the message says why."""


def add(path: Path, name: str, *, rate: str | None, concurrency: int | None) -> str:
    """Makes a key and returns it, its only copy: the file gets its hash. Raises KeysError."""
    key = PREFIX + secrets.token_urlsafe(32)
    line: dict[str, Any] = {
        "name": name,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "rate": rate,
        "concurrency": concurrency,
        "created": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    with _edited(path) as keys:
        if any(kept["name"] == name for kept in keys):
            raise KeysError(f"{path} already has a key named {name}; revoke it first")
        keys.append({option: value for option, value in line.items() if value is not None})
    return key


def revoke(path: Path, name: str) -> None:
    """Removes a key. Raises KeysError if there is none of that name."""
    with _edited(path) as keys:
        kept = [key for key in keys if key["name"] != name]
        if len(kept) == len(keys):
            raise KeysError(f"{path} has no key named {name}")
        keys[:] = kept


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of all keys; none if there is no file. Raises KeysError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        keys = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise KeysError(f"{path} is not a file of keys") from None
    if not all(isinstance(key, dict) and "name" in key for key in keys):
        raise KeysError(f"{path} is not a file of keys")
    return keys


@contextlib.contextmanager
def _edited(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yields the file's keys and writes them back atomically, one process at a time."""
    try:
        with _locked(path.parent):
            keys = read(path)
            yield keys
            # Private to this user from the start; a service sees the old file or the new one.
            descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            if path.exists():  # whoever could read it still can
                before = path.stat()
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(key) + "\n" for key in keys)
                Path(scratch).replace(path)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise KeysError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
