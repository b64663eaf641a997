"""What a checkpoint is, and the error if it cannot be served. Imports nothing heavy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Layout = Literal["transformers", "timm", "open_clip", "sentence_transformers"]

_LFS_POINTER = b"version https://git-lfs"


class CheckpointError(Exception):
    """The configured model cannot be served here; start-up stops.

    The message is one sentence for the operator: the model or file, what is wrong, what to do.
    Clients of the service never see it, so it may name folders of the server.
    """


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without the advice below it; its type if empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in the layout of a Hugging Face snapshot, every needed file present and whole."""

    id: str
    """The bundled id, a Hugging Face id, or a local folder's name: clients see it, so no path."""
    revision: str | None
    """Commit of a Hugging Face id, checksum of the bundled weights, None for a local folder."""
    folder: Path
    layout: Layout | None = None
    """Whose files are read, if the id says so; None where the folder's files alone decide."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError."""
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: should hold a JSON object; {remedy(path)}")
    return content


def read_json_value(path: Path) -> Any:
    """Whatever JSON is in the file. Raises CheckpointError."""
    check_present(path)
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as JSON ({error}); {remedy(path)}"
        ) from error


def check_present(path: Path) -> None:
    """Raises CheckpointError if a file is missing, unreadable, empty or a Git LFS pointer."""
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
        raise CheckpointError(f"{path}: the file is empty; {remedy(path)}")
    if beginning == _LFS_POINTER:
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )


def remedy(path: Path) -> str:
    """What to do about a damaged file, as a clause."""
    model = _hub_folder(path)
    # Not the file alone: it is a link, and deleting that would keep the damaged blob.
    return "download it again" if model is None else f"delete {model} to have it downloaded again"


def _missing(path: Path) -> str:
    if _hub_folder(path) is None:
        return "complete the folder or choose another"
    return "start once with the hub in reach, or choose a checkpoint whose repository has it"


def _hub_folder(path: Path) -> Path | None:
    """The model's folder in the hub's cache, if `path` is a file in one of its snapshots."""
    return next((place.parent for place in path.parents if place.name == "snapshots"), None)
