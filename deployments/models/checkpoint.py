"""What a checkpoint is, and the error of one that cannot be served. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path


class CheckpointError(Exception):
    """The configured model cannot be served here; start-up stops.

    The message is one sentence for the operator: the model or file, what is wrong, what to do.
    Callers of the service never see it, so it may name folders of the server.
    """


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in the layout of a Hugging Face snapshot, every needed file present and whole."""

    id: str
    """As configured: the bundled id, a folder or a Hugging Face id."""
    revision: str | None
    """Commit of a Hugging Face id, checksum of the bundled weights, None for a local folder."""
    folder: Path
