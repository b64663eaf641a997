"""Whether the files of a checkpoint are complete and undamaged. Reads parts of them, runs none.

Knows nothing of where they came from or what the values in them mean.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from deployments.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    Layout,
    check_present,
    read_json,
    remedy,
)
from deployments.checkpoints.layout import CONFIG, OPEN_CLIP_CONFIG, layout_of
from deployments.checkpoints.modules import MODULES, READERS, WEIGHTED, read_modules

_WEIGHTS = "model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
OPEN_CLIP_PICKLE = "open_clip_pytorch_model.bin"
_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
_INDEX = "model.safetensors.index.json"
_TOKENIZER_JSON = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json"),
)
_TOKENIZER_OTHER = ("vocab.txt", "merges.txt", "*.model")
_ADAPTER = "adapter_config.json"
# What sentence-transformers keeps beside its modules, and beside the one that reads texts.
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
READING = "sentence_*_config.json"

# All files that raylens reads of a checkpoint, as patterns: first the small ones, which say what it
# is, then the weights.
TOKENIZERS = [*_TOKENIZER_JSON, *_TOKENIZER_OTHER]
DESCRIPTIONS = [
    *(CONFIG, OPEN_CLIP_CONFIG, MODULES, _PREPROCESSOR, _PROCESSOR, _INDEX, _ADAPTER),
    *(SENTENCE_TRANSFORMERS, READING),
    *TOKENIZERS,
]
WEIGHTS = [_WEIGHTS, "model-*-of-*.safetensors"]


def check_files(folder: Path, layout: Layout | None = None) -> None:
    """Raises CheckpointError, naming the file, if one is missing, damaged, or only a pickle, or if
    files beside the model would change its vectors and cannot be read.

    `layout`: as in `Checkpoint`. OpenCLIP's pickles are let through, because `pickles` converts
    them. Tokenizer files are checked for damage only: which of them a model needs is left to
    `texts`.
    """
    layout = layout or layout_of(folder)
    if layout == "sentence_transformers":
        _check_modules(folder)
        return
    if os.path.lexists(folder / SENTENCE_TRANSFORMERS) or any(folder.glob("[0-9]*_*/config.json")):
        raise CheckpointError(
            f"{folder / MODULES}: the file is missing, so that the modules of sentence-transformers"
            " in this folder would be ignored; complete the folder or choose another"
        )
    if layout == "open_clip":
        read_json(folder / OPEN_CLIP_CONFIG)
    else:
        read_json(folder / CONFIG)
    if layout == "transformers":
        preprocessor_settings(folder)
    _check_model(folder, layout)


def _check_modules(folder: Path) -> None:
    if os.path.lexists(folder / SENTENCE_TRANSFORMERS):
        read_json(folder / SENTENCE_TRANSFORMERS)
    for module in read_modules(folder):
        place = folder / module.path
        if module.kind in READERS:
            read_json(place / CONFIG)
            for path in place.glob(READING):
                read_json(path)
            _check_model(place)
        elif module.kind in WEIGHTED:
            read_json(place / CONFIG)
            _check_weights(place)
        elif os.path.lexists(place / CONFIG):
            read_json(place / CONFIG)


def _check_model(folder: Path, layout: Layout = "transformers") -> None:
    """Weights, and files of a tokenizer."""
    if os.path.lexists(folder / _ADAPTER):
        # transformers applies it where peft is installed, and passes over it where not.
        raise CheckpointError(
            f"{folder / _ADAPTER}: an adapter lies beside the weights, and raylens would leave it "
            "out; merge it into them (peft's merge_and_unload) and save both as one model, or "
            "remove it"
        )
    _check_weights(folder, layout)
    for name in _TOKENIZER_JSON:
        if os.path.lexists(folder / name):
            read_json(folder / name)
    for pattern in _TOKENIZER_OTHER:
        for path in folder.glob(pattern):
            check_present(path)


def _check_weights(folder: Path, layout: Layout = "transformers") -> None:
    for path in _weight_files(folder, layout):
        check_present(path)
        if path.name == OPEN_CLIP_PICKLE:
            continue
        try:
            with safe_open(path, framework="np"):  # checks the length against the header
                pass
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: cut short or not a safetensors file ({error}); {remedy(path)}"
            ) from error


def preprocessor_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file in `folder` that holds the image processor's settings, and the settings.

    That is processor_config.json if they are nested in it, as transformers 5 saves them together
    with a tokenizer's, else preprocessor_config.json; transformers looks in the same order.
    Raises CheckpointError.
    """
    nesting = folder / _PROCESSOR
    if nesting.is_file():
        nested = read_json(nesting).get("image_processor")
        if isinstance(nested, dict):
            return nesting, nested
    path = folder / _PREPROCESSOR
    if not path.is_file():
        raise CheckpointError(f"{path}: the file is missing")
    return path, read_json(path)


def identity(checkpoint: Checkpoint) -> tuple[str, str]:
    """What identifies a checkpoint's files: its id, and its revision or `fingerprint`."""
    return checkpoint.id, checkpoint.revision or fingerprint(checkpoint.folder)


def fingerprint(folder: Path) -> str:
    """Identifies a checkpoint that has no revision: a hash of every file that raylens reads of it.

    The same on every machine. A gigabyte takes about a second.
    """
    found = hashlib.sha256()
    names = DESCRIPTIONS + WEIGHTS
    files = {path for place in _places(folder) for name in names for path in place.glob(name)}
    layout = layout_of(folder)  # a module's own folder is never laid out in another library's way
    for place in _weighted(folder):
        files.update(_weight_files(place, layout))
    for path in sorted(files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return found.hexdigest()


def names_in(folder: Path) -> list[str]:
    """All files that raylens reads of a checkpoint, as patterns, told by its modules.json if it has
    one; not for OpenCLIP's layout. Raises CheckpointError if that cannot be read."""
    if layout_of(folder) != "sentence_transformers":
        return DESCRIPTIONS + WEIGHTS
    names = [MODULES, SENTENCE_TRANSFORMERS]
    for module in read_modules(folder):
        inside = f"{module.path}/" if module.path else ""
        names += (f"{inside}{name}" for name in DESCRIPTIONS + WEIGHTS)
    return names


def _places(folder: Path) -> set[Path]:
    """The folders that files of a checkpoint lie in."""
    if layout_of(folder) != "sentence_transformers":
        return {folder}
    return {folder, *(folder / module.path for module in read_modules(folder))}


def _weighted(folder: Path) -> list[Path]:
    """Those that weights lie in."""
    if layout_of(folder) != "sentence_transformers":
        return [folder]
    return [folder / module.path for module in read_modules(folder) if module.kind in WEIGHTED]


def weight_names(folder: Path) -> set[str]:
    """The names of all weights. Raises CheckpointError if the files are missing or damaged."""
    names: set[str] = set()
    for path in _weight_files(folder, layout_of(folder)):
        try:
            with safe_open(path, framework="np") as weights:
                names.update(weights.keys())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); {remedy(path)}") from error
    return names


def has_weights(folder: Path) -> bool:
    """Whether all weights are there in safetensors, damaged or not; not for OpenCLIP's layout."""
    return all(_has_weights(place) for place in _weighted(folder))


def _has_weights(place: Path) -> bool:
    return any(os.path.lexists(place / name) for name in (_WEIGHTS, _INDEX))


def open_clip_weights(folder: Path) -> Path:
    """The weights in OpenCLIP's layout, which are a pickle in some repositories. It may be
    missing."""
    pickle = folder / OPEN_CLIP_PICKLE
    if os.path.lexists(pickle) and not os.path.lexists(folder / OPEN_CLIP_WEIGHTS):
        return pickle
    return folder / OPEN_CLIP_WEIGHTS


def _weight_files(folder: Path, layout: Layout) -> list[Path]:
    if layout == "open_clip":
        return [open_clip_weights(folder)]
    if not _has_weights(folder):
        raise CheckpointError(
            f"{folder / _WEIGHTS}: the file is missing, and raylens reads weights from safetensors "
            "alone, because pickles (.bin, .pt, .ckpt) can run code; choose a checkpoint or a "
            "model.revision that has it"
        )
    if os.path.lexists(folder / _WEIGHTS):
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index}: has no weight_map; {remedy(index)}")
    names = {str(name) for name in shards.values()}
    for name in sorted(names):
        if name in ("", "..") or Path(name).name != name:
            raise CheckpointError(f"{index}: names {name!r}, which is not a file in its folder")
    return [folder / name for name in sorted(names)]
