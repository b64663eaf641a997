"""What a checkpoint is, and the error of one that cannot be served. Imports nothing heavy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CheckpointError(Exception):
    """The configured model cannot be served here; start-up stops.

    The message is one sentence for the operator: the model or file, what is wrong, what to do.
    Callers of the service never see it, so it may name folders of the server.
    """


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
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: should hold a JSON object")
    return content
