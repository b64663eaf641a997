"""From a Hugging Face id to a folder in the hub's local cache, and why that failed.

HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT have their usual meaning. Knows nothing of what
is in the files.
"""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors, get_session, snapshot_download

from deployments.checkpoints.checkpoint import CheckpointError, first_line
from deployments.checkpoints.integrity import NAMES, has_weights
from deployments.checkpoints.progress import Progress

logger = logging.getLogger("ray.serve")

ANSWER_WITHIN_S = 10.0

# The account with which Hugging Face opens pull requests that add safetensors to old models.
_CONVERTER = "SFconvertbot"

# The first class that fits tells the operator what to do; a subclass comes before its parent.
_ADVICE: list[tuple[type[Exception], str]] = [
    (errors.GatedRepoError, "accept its terms on huggingface.co and set HF_TOKEN"),
    (
        errors.RepositoryNotFoundError,
        "no folder has that path here, and no public model that id; correct it, or set HF_TOKEN "
        "if the model is private",
    ),
    (errors.RevisionNotFoundError, "check model.revision"),
    (errors.HFValidationError, "it is neither a bundled model, nor a folder, nor a hub id"),
]


def download(id: str, revision: str | None) -> Path:
    """The folder `snapshots/<commit>` of a model, with all that raylens reads of it.

    What is not in the cache yet is downloaded. A commit that has pickles alone gives way to the
    one with which Hugging Face's own bot added safetensors to it.

    Raises CheckpointError. The files may still be damaged, or too few.
    """
    _limit_waiting()
    folder = _snapshot(id, revision)
    if has_weights(folder):
        return folder
    converted = _conversion(id, folder)
    if converted is None:
        return folder
    logger.info(
        f"Model {id} has pickles alone at {folder.name}; taking the safetensors that Hugging "
        f"Face's {_CONVERTER} made of them ({converted})"
    )
    return _snapshot(id, converted)


def _limit_waiting() -> None:
    """The hub's client waits for ever, so behind a firewall that swallows packets it would not
    even get to what is in the cache. Its own log has lines for every retry of every request, before
    the sentence that says the same."""
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}


def _limit(request: Any) -> None:
    waits = request.extensions.get("timeout", {})
    limits = {"connect": ANSWER_WITHIN_S, "read": ANSWER_WITHIN_S}
    request.extensions["timeout"] = limits | {k: v for k, v in waits.items() if v is not None}


def _snapshot(id: str, revision: str | None) -> Path:
    progress = Progress(id)
    try:
        return Path(
            snapshot_download(
                id,
                revision=revision,
                allow_patterns=NAMES,
                ignore_patterns=["*/*"],  # exports for other runtimes live in subfolders
                tqdm_class=progress.counter(),
            )
        )
    except Exception as error:  # the hub client lets its HTTP library's errors through
        raise CheckpointError(_sentence(id, revision, error)) from error
    finally:
        progress.close()


def _conversion(id: str, folder: Path) -> str | None:
    """The reference of the converter's pull request on top of this very commit, if there is one."""
    api = HfApi()
    try:
        requests = api.get_repo_discussions(
            id, author=_CONVERTER, discussion_type="pull_request", discussion_status="open"
        )
        for request in requests:
            commits = api.list_repo_commits(id, revision=request.git_reference)
            parents = [commit.commit_id for commit in commits[1:2]]
            if request.author == _CONVERTER and parents == [folder.name]:
                return request.git_reference
    except Exception:  # the hub is out of reach; perhaps an earlier start has been here
        known = [path.name for path in (folder.parent.parent / "refs/refs/pr").glob("*")]
        if len(known) == 1:
            return f"refs/pr/{known[0]}"
    return None


def _sentence(id: str, revision: str | None, error: Exception) -> str:
    model = f"model {id!r}" + (f" at revision {revision!r}" if revision is not None else "")
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return f"{model} cannot be downloaded: {advice}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, errors.OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set"
        else:
            reason = f"the hub cannot be reached ({first_line(cause or error)})"
        found = "is not in the local cache"
        if hasattr(error, "snapshot_path"):  # IncompleteSnapshotError: "…: 2 file(s) are missing"
            missing = first_line(error).partition(". ")[0].rpartition("incomplete: ")[2]
            found = f"is not whole in the local cache: {missing}"
        return (
            f"{model} {found}, and {reason}; start once where there is a network, or mount a "
            "complete cache (HF_HOME), or set model.id to a checkpoint folder (a path "
            "from here, or absolute)"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 401:
        return f"{model} cannot be downloaded: the hub does not accept HF_TOKEN; renew or unset it"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{model} cannot be downloaded: {error.strerror}: {error.filename}; HF_HOME names the "
            "folder that it goes to"
        )
    return (
        f"{model} cannot be downloaded ({type(error).__name__}: {first_line(error)}); check the "
        "network, or set model.id to a checkpoint folder"
    )
