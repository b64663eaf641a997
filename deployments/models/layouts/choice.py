"""Which layout reads a checkpoint."""

from importlib import import_module
from typing import cast

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.checkpoints.layout import layout_of
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.settings import ModelSettings
from deployments.wire import PatchSpec


def load(
    checkpoint: Checkpoint, settings: ModelSettings, text: Checkpoint | None = None
) -> LoadedCheckpoint:
    """The checkpoint's model, in float32 on the CPU; `text` is the one that reads its texts, if it
    is another (`model.text_id`).

    Raises CheckpointError if it cannot be served, or not as the settings say.
    """
    # Imported by name, because each needs a library that need not be installed.
    layout = checkpoint.layout or layout_of(checkpoint.folder)
    module = import_module(f"deployments.models.layouts.{layout}")
    loaded = cast(LoadedCheckpoint, module.load(checkpoint, settings))
    takes_patches = isinstance(loaded.preprocessing.pixels, PatchSpec)
    if settings.max_num_patches is not None and not takes_patches:
        raise CheckpointError(
            f"model.max_num_patches is set, but model {checkpoint.id!r} takes images of one size; "
            "remove it, or serve a NaFlex checkpoint such as google/siglip2-base-patch16-naflex"
        )
    if text is None:
        return loaded
    from deployments.models.layouts.sentence_transformers import with_text_of

    return with_text_of(loaded, text)
