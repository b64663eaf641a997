"""Checks settings and downloads models before Ray starts, in a process of its own.

`raylens serve` runs it with an application's `args` as JSON on standard input. Progress goes to
standard error. What is wrong goes to standard output as one sentence, with exit code 1.
"""

import json
import logging
import sys
from pathlib import Path

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.checkpoints.finding import find_checkpoint, find_text_checkpoint
from deployments.config import SettingsError, load_settings
from deployments.models import exported, stores
from deployments.settings import BUNDLED_ID, ModelSettings


def main() -> int:
    logger = logging.getLogger("ray.serve")  # what `models` logs to, in every process
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    try:
        settings = load_settings(json.load(sys.stdin))
        for model in (settings.model, *settings.models):
            # The bundled model needs no network, and converting it would import torch.
            if model.id != BUNDLED_ID and not _is_exported(model):
                find_checkpoint(model)
                find_text_checkpoint(model)
    except (SettingsError, CheckpointError) as error:
        print(error)
        return 1
    return 0


def _is_exported(model: ModelSettings) -> bool:
    """Whether a replica on this machine can do without the checkpoint's own files."""
    has_gpu = any(Path("/dev").glob("nvidia*"))
    in_torch = model.device == "cuda" or (model.device == "auto" and has_gpu)
    if in_torch or model.compile == "off" or not exported.is_pinned(model):
        return False
    try:
        export = exported.find(model)
        if export is not None:
            export.settled(model.precision)
            return True
        store = model.exports or ""
        return "://" in store and stores.has(store, exported.export_key(model))
    except (exported.NotExportableError, CheckpointError):
        return False  # the checkpoint is needed, or the replica will say what is wrong


if __name__ == "__main__":
    sys.exit(main())
