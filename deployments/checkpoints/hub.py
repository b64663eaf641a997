"""From a Hugging Face id to a folder in the hub's local cache, or an error that says what to do.

HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT have their usual meaning. Knows nothing of what
is in the files.
"""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors, get_session, snapshot_download

from deployments.checkpoints.checkpoint import CheckpointError, Layout, first_line
from deployments.checkpoints.integrity import (
    DESCRIPTIONS,
    OPEN_CLIP_PICKLE,
    OPEN_CLIP_WEIGHTS,
    TOKENIZERS,
    has_weights,
    names_in,
)
from deployments.checkpoints.layout import CONFIG, OPEN_CLIP_CONFIG, layout_of
from deployments.checkpoints.modules import MODULES
from deployments.checkpoints.open_clip import find_text_model, find_tokenizer, read_config
from deployments.checkpoints.progress import Progress

logger = logging.getLogger("ray.serve")

ANSWER_WITHIN_S = 10.0

# The account with which Hugging Face opens pull requests that add safetensors to old models.
_CONVERTER = "SFconvertbot"

# What the operator should do: the first class that matches applies, so subclasses come first.
_ADVICE: list[tuple[type[Exception], str]] = [
    (errors.GatedRepoError, "accept its terms on huggingface.co and set HF_TOKEN"),
    (
        errors.RepositoryNotFoundError,
        "there is no such folder here and no public model with that id; correct it, or set "
        "HF_TOKEN if the model is private",
    ),
    (errors.RevisionNotFoundError, "check model.revision"),
    (errors.HFValidationError, "it is neither a bundled model, nor a folder, nor a hub id"),
]


def download(id: str, revision: str | None, layout: Layout | None = None) -> Path:
    """The folder `snapshots/<commit>` of a model, with every file that raylens reads.

    Downloads what is not in the cache yet: weights in the `layout`, or in that which the model's
    other files tell. If a commit has only pickles, takes the one on top of it with which Hugging
    Face's own bot added safetensors, if there is one. OpenCLIP's pickles are taken as they are.

    Raises CheckpointError. Files may still be damaged or missing.
    """
    _limit_waiting()
    folder = _snapshot(id, revision, [CONFIG, OPEN_CLIP_CONFIG, MODULES])  # those tell the others
    if (layout or layout_of(folder)) == "open_clip":
        return _with_open_clip_weights(id, revision)
    names = names_in(folder)
    folder = _snapshot(id, revision, names)
    if has_weights(folder):
        return folder
    converted = _conversion(id, folder)
    if converted is None:
        return folder
    logger.info(
        f"Model {id} has only pickles at {folder.name}; using the safetensors that Hugging "
        f"Face's {_CONVERTER} made of them ({converted})"
    )
    return _snapshot(id, converted, names)


def _with_open_clip_weights(id: str, revision: str | None) -> Path:
    """The folder with the weights: a pickle only where there is nothing else. What the repository
    lacks of its text tower is downloaded into the cache as well."""
    folder = _snapshot(id, revision, [*DESCRIPTIONS, OPEN_CLIP_WEIGHTS])
    if not (folder / OPEN_CLIP_WEIGHTS).exists():
        folder = _snapshot(id, revision, [*DESCRIPTIONS, OPEN_CLIP_PICKLE])
    config = read_config(folder)
    if config.text_model is not None and find_text_model(folder, config.text_model) is None:
        _snapshot(config.text_model, None, [CONFIG])
    if config.tokenizer is not None and find_tokenizer(folder, config.tokenizer) is None:
        _snapshot(config.tokenizer, None, TOKENIZERS)
    return folder


def _limit_waiting() -> None:
    """Gives the hub's client a timeout, and silences its log of every retry.

    It has none by default, so behind a firewall that drops packets it would never get as far as the
    cache. Our own error says once what its log would say for every request.
    """
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}


def _limit(request: Any) -> None:
    waits = request.extensions.get("timeout", {})
    limits = {"connect": ANSWER_WITHIN_S, "read": ANSWER_WITHIN_S}
    request.extensions["timeout"] = limits | {k: v for k, v in waits.items() if v is not None}


def _snapshot(id: str, revision: str | None, names: list[str]) -> Path:
    """The folder with these files, which are patterns."""
    progress = Progress(id)
    # `*` stands for folders too, and exports for other runtimes live in some of them.
    others = ["*/*/*"] if any("/" in name for name in names) else ["*/*"]
    try:
        return Path(
            snapshot_download(
                id,
                revision=revision,
                allow_patterns=names,
                ignore_patterns=others,
                tqdm_class=progress.counter(),
            )
        )
    except Exception as error:  # the hub's client lets its HTTP library's errors through
        raise CheckpointError(_sentence(id, revision, error)) from error
    finally:
        progress.close()


def _conversion(id: str, folder: Path) -> str | None:
    """The git reference of the converter's open pull request on this very commit, if any."""
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
    except Exception:  # the hub cannot be reached; an earlier start may have cached it
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
            found = f"is incomplete in the local cache: {missing}"
        return (
            f"{model} {found}, and {reason}; start once where there is a network, or mount a "
            "complete cache (HF_HOME), or set model.id to a checkpoint folder (an absolute path, "
            "or one relative to the working directory)"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 401:
        return f"{model} cannot be downloaded: the hub does not accept HF_TOKEN; renew or unset it"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{model} cannot be downloaded: {error.strerror}: {error.filename}; HF_HOME sets the "
            "folder that it is stored in"
        )
    return (
        f"{model} cannot be downloaded ({type(error).__name__}: {first_line(error)}); check the "
        "network, or set model.id to a checkpoint folder"
    )
