"""From the configured id to a folder of checked files: bundled, local or from the Hugging Face hub.

Knows nothing of torch or of what is in the weights.
"""

from collections.abc import Callable
from pathlib import Path

from deployments.checkpoints import bundled, open_clip_names
from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, Layout
from deployments.checkpoints.integrity import check_files
from deployments.settings import BUNDLED_ID, ModelSettings, is_local

Download = Callable[[str, str | None, Layout | None], Path]


def _download(id: str, revision: str | None, layout: Layout | None) -> Path:
    from deployments.checkpoints import hub  # its client is slow to import

    return hub.download(id, revision, layout)


def find_checkpoint(
    settings: ModelSettings,
    *,
    download: Download = _download,
) -> Checkpoint:
    """The folder that `settings.id` stands for: the bundled model, a local folder, a hub id, or a
    name of OpenCLIP's such as `ViT-B-32__openai`.

    The last two are downloaded once into the hub's cache, and the commit becomes the revision.

    Raises CheckpointError if it cannot be found or downloaded, or if a file is missing, damaged or
    only a pickle.
    """
    if settings.id == BUNDLED_ID:
        _refuse_revision("model.revision", settings.id, settings.revision)
        found = Checkpoint(settings.id, bundled.REVISION, bundled.snapshot())
        check_files(found.folder)
        return found
    return _find("model.", settings.id, settings.revision, download)


def find_text_checkpoint(
    settings: ModelSettings, *, download: Download = _download
) -> Checkpoint | None:
    """The same for `settings.text_id`; None if it is not set."""
    if settings.text_id is None:
        return None
    return _find("model.text_", settings.text_id, settings.text_revision, download)


def _find(prefix: str, id: str, revision: str | None, download: Download) -> Checkpoint:
    """`prefix`: what the names of the two settings begin with."""
    if is_local(id):
        _refuse_revision(f"{prefix}revision", id, revision)
        if not Path(id).is_dir():
            raise CheckpointError(
                f"model {id!r}: there is no such folder on this machine; correct {prefix}id"
            )
        found = Checkpoint(Path(id).name, None, Path(id).resolve())
    else:
        repository = open_clip_names.repository(id)
        layout: Layout | None = "open_clip" if repository is not None else None
        folder = download(repository or id, revision, layout)
        found = Checkpoint(id, folder.name, folder, layout)  # snapshots/<commit>
    check_files(found.folder, found.layout)
    return found


def _refuse_revision(setting: str, id: str, revision: str | None) -> None:
    if revision is not None:
        raise CheckpointError(
            f"{setting} is {revision!r}, but {id!r} is not a Hugging Face id; remove the revision"
        )
