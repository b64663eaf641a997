"""From the configured id to a folder of checked files: bundled, local or from the Hugging Face hub.

Knows nothing of torch or of what is in the weights.
"""

from collections.abc import Callable
from pathlib import Path

from deployments.checkpoints import bundled, open_clip_names
from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, Layout
from deployments.checkpoints.integrity import check_files
from deployments.settings import BUNDLED_ID, ModelSettings


def _download(id: str, revision: str | None, layout: Layout | None) -> Path:
    from deployments.checkpoints import hub  # its client is slow to import

    return hub.download(id, revision, layout)


def find_checkpoint(
    settings: ModelSettings,
    *,
    download: Callable[[str, str | None, Layout | None], Path] = _download,
) -> Checkpoint:
    """The folder that `settings.id` stands for: the bundled model, a local folder, a hub id, or a
    name of OpenCLIP's such as `ViT-B-32__openai`.

    The last two are downloaded once into the hub's cache, and the commit becomes the revision.

    Raises CheckpointError if it cannot be found or downloaded, or if a file is missing, damaged or
    only a pickle.
    """
    if settings.id == BUNDLED_ID:
        _refuse_revision(settings)
        found = Checkpoint(settings.id, bundled.REVISION, bundled.snapshot())
    elif settings.is_local:
        _refuse_revision(settings)
        if not Path(settings.id).is_dir():
            raise CheckpointError(
                f"model {settings.id!r}: there is no such folder on this machine; correct model.id"
            )
        found = Checkpoint(settings.name, None, Path(settings.id).resolve())
    else:
        repository = open_clip_names.repository(settings.id)
        layout: Layout | None = "open_clip" if repository is not None else None
        folder = download(repository or settings.id, settings.revision, layout)
        found = Checkpoint(settings.id, folder.name, folder, layout)  # snapshots/<commit>
    check_files(found.folder, found.layout)
    return found


def _refuse_revision(settings: ModelSettings) -> None:
    if settings.revision is not None:
        raise CheckpointError(
            f"model.revision is {settings.revision!r}, but {settings.id!r} is not a Hugging Face "
            "id; remove the revision"
        )
