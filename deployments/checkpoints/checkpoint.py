"""What a checkpoint is, and the error of one that cannot be served. Imports nothing heavy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LFS_POINTER = b"version https://git-lfs"


class CheckpointError(Exception):
    """The configured model cannot be served here; start-up stops.

    The message is one sentence for the operator: the model or file, what is wrong, what to do.
    Callers of the service never see it, so it may name folders of the server.
    """


def first_line(error: BaseException) -> str:
    """What a library says, without its traceback and its advice; its type if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in the layout of a Hugging Face snapshot, every needed file present and whole."""

    id: str
    """The bundled id, a Hugging Face id, or a local folder's name: callers see it, so no path."""
    revision: str | None
    """Commit of a Hugging Face id, checksum of the bundled weights, None for a local folder."""
    folder: Path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError."""
    check_present(path)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); {anew(path)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: should hold a JSON object; {anew(path)}")
    return content


def check_present(path: Path) -> None:
    """Raises CheckpointError if a file is missing, unreadable, empty or only a stand-in."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_LFS_POINTER))
    except FileNotFoundError as error:
        problem = (
            "the file that it links to is missing" if path.is_symlink() else "the file is missing"
        )
        raise CheckpointError(f"{path}: {problem}; {_missing(path)}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not beginning:
        raise CheckpointError(f"{path}: the file is empty; {anew(path)}")
    if beginning == _LFS_POINTER:
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )


def anew(path: Path) -> str:
    """What to do about a damaged file, as a clause."""
    model = _hub_folder(path)
    # Its blob alone would do as well, but whoever deletes a link keeps the blob.
    return "download it again" if model is None else f"delete {model} to have it downloaded again"


def _missing(path: Path) -> str:
    if _hub_folder(path) is None:
        return "complete the folder or choose another"
    return "start once with the hub in reach, or choose a checkpoint whose repository has it"


def _hub_folder(path: Path) -> Path | None:
    """The folder that the hub's cache has for a model, if `path` is a file of its snapshots."""
    snapshots = path.parent.parent
    return snapshots.parent if snapshots.name == "snapshots" else None
