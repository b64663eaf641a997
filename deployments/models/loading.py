"""From the configured id to a folder of checked files, and from the folder to a torch module.

Knows nothing of pixels. Weights are read from safetensors alone: pickles can run code, and so
can a repository's own modelling code, which is never loaded either.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from deployments.models import bundled, spec
from deployments.models.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.settings import Model

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_WANTED = [
    *("config.json", spec.FILE, "processor_config.json"),
    *(_WEIGHTS, _INDEX, "model-*-of-*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model"),
]
# The first class that fits tells the operator what to do; a subclass comes before its parent.
_HUB_ADVICE: list[tuple[type[Exception], str]] = [
    (hub.GatedRepoError, "accept its terms on huggingface.co and set HF_TOKEN"),
    (hub.RepositoryNotFoundError, "check the id, or set HF_TOKEN if the model is private"),
    (hub.RevisionNotFoundError, "check model.revision"),
    (hub.HFValidationError, "it is neither a bundled model, nor a folder, nor a Hugging Face id"),
    (
        hub.LocalEntryNotFoundError,
        "the hub cannot be reached and the model is not in the local cache: download it where "
        "there is a network and mount it (HF_HOME), or set model.id to a checkpoint folder",
    ),
]


def find_checkpoint(
    settings: Model, *, download: Callable[..., str] = snapshot_download
) -> Checkpoint:
    """The folder that `settings.id` means: the bundled model, a local folder or a hub id.

    A hub id is downloaded once into the Hugging Face cache (HF_HOME, HF_HUB_OFFLINE and HF_TOKEN
    have their usual meaning) and its commit becomes the revision.

    Raises CheckpointError if it cannot be had, or a file is missing, damaged or only a pickle.
    """
    local = Path(settings.id).expanduser()
    if settings.id == bundled.BUNDLED_ID:
        _refuse_revision(settings)
        found = Checkpoint(settings.id, bundled.REVISION, bundled.snapshot())
    elif local.is_dir():
        _refuse_revision(settings)
        found = Checkpoint(local.resolve().name, None, local.resolve())
    elif settings.id.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"model {settings.id!r}: there is no such folder on this machine")
    else:
        try:
            folder = Path(
                download(
                    settings.id,
                    revision=settings.revision,
                    allow_patterns=_WANTED,
                    ignore_patterns=["*/*"],  # exports for other runtimes live in subfolders
                )
            )
        except Exception as error:  # the hub client lets its HTTP library's errors through
            raise CheckpointError(_hub_sentence(settings, error)) from error
        found = Checkpoint(settings.id, folder.name, folder)  # snapshots/<commit>
    _check_files(found.folder)
    return found


def load_model(checkpoint: Checkpoint) -> torch.nn.Module:
    """The checkpoint's model without any task head, float32, on the CPU, ready for inference.

    Raises CheckpointError if transformers cannot build it, or if the files lack a weight of it,
    which would otherwise be left random.
    """
    from transformers import AutoModel  # a second of imports that finding a folder needs not

    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a model class raises, it is this checkpoint's fault
        raise CheckpointError(
            f"model {checkpoint.id!r}: transformers cannot load it ({_first_line(error)})"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise CheckpointError(
            f"model {checkpoint.id!r}: its files lack {len(missing)} of the weights that "
            f"{type(model).__name__} needs ({shown}); use a checkpoint that was saved with them"
        )
    module: torch.nn.Module = model.eval()
    return module


def _refuse_revision(settings: Model) -> None:
    if settings.revision is not None:
        raise CheckpointError(
            f"model.revision is {settings.revision!r}, but {settings.id!r} is not a Hugging Face "
            "id; remove the revision"
        )


def _hub_sentence(settings: Model, error: Exception) -> str:
    wanted = f"model {settings.id!r}"
    if settings.revision is not None:
        wanted += f" at revision {settings.revision!r}"
    for kind, advice in _HUB_ADVICE:
        if isinstance(error, kind):
            return f"{wanted} cannot be downloaded: {advice}"
    return (
        f"{wanted} cannot be downloaded ({type(error).__name__}: {_first_line(error)}); check the "
        "network, or set model.id to a checkpoint folder"
    )


def _check_files(folder: Path) -> None:
    read_json(folder / "config.json")
    read_json(folder / spec.FILE)
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as opened:  # compares the header to the length
                opened.keys()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: missing, cut short or not a safetensors file ({_first_line(error)}); "
                "download it again"
            ) from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        raise CheckpointError(
            f"{folder / _WEIGHTS}: the file is missing; raylens reads weights from safetensors "
            "alone, because pickles (.bin, .pt, .ckpt) can run code"
        )
    shards = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{folder / _INDEX}: has no weight_map")
    return [folder / str(name) for name in sorted(set(shards.values()))]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table of unused heads in the replica's log."""
    from transformers import utils

    logging: Any = utils.logging  # not annotated
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
