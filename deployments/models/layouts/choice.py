"""Which layout reads a checkpoint."""

from importlib import import_module
from typing import cast

from deployments.checkpoints.checkpoint import Checkpoint
from deployments.checkpoints.layout import layout_of
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.settings import ModelSettings


def load(checkpoint: Checkpoint, settings: ModelSettings) -> LoadedCheckpoint:
    """The checkpoint's model, in float32 on the CPU. Raises CheckpointError."""
    # Imported by name, because each needs a library that need not be installed.
    layout = checkpoint.layout or layout_of(checkpoint.folder)
    module = import_module(f"deployments.models.layouts.{layout}")
    return cast(LoadedCheckpoint, module.load(checkpoint, settings))
