"""Which layout reads a checkpoint."""

from importlib import import_module
from typing import cast

from deployments.checkpoints.checkpoint import Checkpoint
from deployments.checkpoints.layout import layout_of
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.settings import ModelSettings


def load(
    checkpoint: Checkpoint, settings: ModelSettings, text: Checkpoint | None = None
) -> LoadedCheckpoint:
    """The checkpoint's model, in float32 on the CPU; `text` is the one that reads its texts, if it
    is another (`model.text_id`). Raises CheckpointError.
    """
    # Imported by name, because each needs a library that need not be installed.
    module = import_module(f"deployments.models.layouts.{layout_of(checkpoint.folder)}")
    loaded = cast(LoadedCheckpoint, module.load(checkpoint, settings))
    if text is None:
        return loaded
    from deployments.models.layouts.sentence_transformers import with_text_of

    return with_text_of(loaded, text)
