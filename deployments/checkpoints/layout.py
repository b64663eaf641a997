"""How a checkpoint's folder is laid out, told by its files alone."""

import os
from pathlib import Path
from typing import Any, Literal

from deployments.checkpoints.checkpoint import read_json
from deployments.checkpoints.modules import MODULES

Layout = Literal["transformers", "timm", "open_clip", "sentence_transformers"]

CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"


def layout_of(folder: Path) -> Layout:
    """Raises CheckpointError for a folder without a file that tells."""
    if os.path.lexists(folder / MODULES):  # a link that leads nowhere must not hide the modules
        return "sentence_transformers"
    # First where a repository holds the same weights in both layouts.
    config = _config(folder)
    if "architecture" in config:
        return "timm"
    if "model_type" not in config and (folder / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    return "transformers"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() and (folder / OPEN_CLIP_CONFIG).is_file():
        return {}
    return read_json(path)
