"""How a checkpoint's folder is laid out, told by its files alone."""

import os
from pathlib import Path
from typing import Any

from deployments.checkpoints.checkpoint import Layout, read_json
from deployments.checkpoints.modules import MODULES

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"

# The kinds of text towers that open_clip takes from transformers. Beside OpenCLIP's own file, a
# config.json of such a kind describes the tower alone.
_TEXT_TOWERS = {"bert", "m2m_100", "mt5", "roberta", "xlm-roberta"}


def layout_of(folder: Path) -> Layout:
    """Raises CheckpointError for a folder without a file that tells."""
    if os.path.lexists(folder / MODULES):  # a link that leads nowhere must not hide the modules
        return "sentence_transformers"
    # First where a repository holds the same weights in both layouts.
    config = _config(folder)
    if "architecture" in config:
        return "timm"
    if (folder / OPEN_CLIP_CONFIG).is_file() and not _is_for_transformers(config):
        return "open_clip"
    return "transformers"


def _is_for_transformers(config: dict[str, Any]) -> bool:
    """Whether a config.json beside OpenCLIP's own is for a model of transformers.

    One with `open_clip_model_name` is for code of the repository's own, which calls open_clip.
    """
    kind = config.get("model_type")
    return (
        kind is not None and str(kind) not in _TEXT_TOWERS and "open_clip_model_name" not in config
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() and (folder / OPEN_CLIP_CONFIG).is_file():
        return {}
    return read_json(path)
