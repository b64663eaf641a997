"""What open_clip_config.json says of a checkpoint, and where its text tower's other files are.

A text tower of transformers is named by a hub id, and built from that repository's config.json. The
repository of the checkpoint may lack this file, and the tokenizer's: then they are read from the
hub's local cache. Nothing here asks the hub.
"""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.integrity import TOKENIZERS
from deployments.checkpoints.layout import CONFIG, OPEN_CLIP_CONFIG, layout_of


@dataclass(frozen=True, slots=True)
class OpenClipConfig:
    """The file's two parts."""

    model: dict[str, Any]
    preprocess: dict[str, Any]

    @property
    def text(self) -> dict[str, Any]:
        found: dict[str, Any] = self.model["text_cfg"]
        return found

    @property
    def text_model(self) -> str | None:
        """The hub id of a text tower of transformers."""
        return self.text.get("hf_model_name") or None

    @property
    def tokenizer(self) -> str | None:
        """The hub id of a tokenizer of transformers. None stands for open_clip's own."""
        return self.text.get("hf_tokenizer_name") or None


def read_config(folder: Path) -> OpenClipConfig:
    """Raises CheckpointError."""
    path = folder / OPEN_CLIP_CONFIG
    content = read_json(path)
    model, preprocess = content.get("model_cfg"), content.get("preprocess_cfg", {})
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(model, dict) or not all(isinstance(model.get(part), dict) for part in parts):
        raise CheckpointError(
            f"{path}: has no model_cfg with a vision_cfg and a text_cfg; download it again"
        )
    if not isinstance(preprocess, dict):
        raise CheckpointError(f"{path}: its preprocess_cfg should be an object; download it again")
    return OpenClipConfig(model, preprocess)


def find_text_model(folder: Path, id: str) -> Path | None:
    """The folder whose config.json describes the text tower `id`."""
    if "model_type" in (read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}):
        return folder
    return _cached(id, [CONFIG])


def find_tokenizer(folder: Path, id: str) -> Path | None:
    """The folder with the files of the tokenizer `id`: the checkpoint's own, if it has any."""
    if any(fnmatch(path.name, name) for path in folder.iterdir() for name in TOKENIZERS):
        return folder
    return _cached(id, [name for name in TOKENIZERS if "*" not in name])


def borrowed(checkpoint: Checkpoint) -> dict[str, str]:
    """The other repositories that files of a checkpoint of any layout come from, each with its
    commit."""
    folder = checkpoint.folder
    if (checkpoint.layout or layout_of(folder)) != "open_clip":
        return {}
    config = read_config(folder)
    found: list[tuple[str, Path | None]] = []
    if config.text_model is not None:
        found.append((config.text_model, find_text_model(folder, config.text_model)))
    if config.tokenizer is not None:
        found.append((config.tokenizer, find_tokenizer(folder, config.tokenizer)))
    return {id: place.name for id, place in found if place is not None and place != folder}


def is_current(id: str, commit: str) -> bool:
    """Whether files of that repository would be of that commit now, or are not in the hub's local
    cache."""
    found = _cached(id, [CONFIG, *(name for name in TOKENIZERS if "*" not in name)])
    return found is None or found.name == commit


def _cached(id: str, names: list[str]) -> Path | None:
    """The snapshot in the hub's local cache that has one of these files."""
    from huggingface_hub import errors, try_to_load_from_cache  # slow to import

    for name in names:
        try:
            path = try_to_load_from_cache(id, name)
        except errors.HFValidationError:
            return None
        if isinstance(path, str):
            return Path(path).parent
    return None
