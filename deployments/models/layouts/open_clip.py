"""Checkpoints in OpenCLIP's layout: open_clip_config.json and open_clip_model.safetensors.

open_clip builds the model, so that every architecture that it knows is served. It is never given a
name to look up on the hub: towers are built from configurations, and weights come from the folder.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from deployments.checkpoints import pickles
from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, first_line, read_json
from deployments.checkpoints.integrity import OPEN_CLIP_PICKLE, open_clip_weights
from deployments.checkpoints.layout import CONFIG, OPEN_CLIP_CONFIG
from deployments.checkpoints.open_clip import OpenClipConfig, find_text_model, read_config
from deployments.models.layouts.layout import LoadedCheckpoint
from deployments.models.layouts.open_clip_images import read_preprocessing
from deployments.models.layouts.open_clip_texts import read_text
from deployments.models.loading import refuse_incomplete
from deployments.settings import ModelSettings

# timm's classes for which pixels off by one grey level leave the vector as it is.
_TOLERANT_TRUNKS = {"Eva", "VisionTransformer"}


def load(checkpoint: Checkpoint, settings: ModelSettings) -> LoadedCheckpoint:
    """Raises CheckpointError if the model cannot be served."""
    library = _library()
    folder = checkpoint.folder
    if settings.pooling not in ("auto", "projection"):
        raise CheckpointError(
            f"model.pooling is {settings.pooling!r}, which OpenCLIP's checkpoints such as "
            f"{checkpoint.id!r} do not have; set it to auto"
        )
    config = read_config(folder)
    tower = _text_model_config(folder, config)
    model = _built(library, checkpoint, config, tower)
    source = _load_weights(library, checkpoint, model)
    visual = model.visual
    preprocessing = read_preprocessing(library, folder, config, visual)
    if hasattr(visual, "output_tokens"):
        visual.output_tokens = False  # CoCa's captions need them
    text = read_text(library, model, folder, config)
    described = tower and read_json(tower / CONFIG)
    return LoadedCheckpoint(
        vision=visual,
        preprocessing=preprocessing,
        text=text,
        pooling="projection",
        tolerant=_is_tolerant(library, visual),
        rules=json.dumps([config.model, described, text.tokenizer.json, source], sort_keys=True),
    )


def _library() -> Any:
    try:
        import open_clip
        import timm  # noqa: F401  (many image towers are timm's)
    except ImportError as error:
        raise CheckpointError(
            f"this checkpoint is in OpenCLIP's layout, and {error.name or 'open_clip'} cannot be "
            f"imported ({first_line(error)}); pip install 'raylens[openclip]'"
        ) from error
    return open_clip


def _text_model_config(folder: Path, config: OpenClipConfig) -> Path | None:
    """The folder whose config.json describes a text tower of transformers; None for a tower of
    open_clip's own."""
    if config.text_model is None:
        return None
    found = find_text_model(folder, config.text_model)
    if found is None:
        raise CheckpointError(
            f"{folder / OPEN_CLIP_CONFIG}: its text tower is built from the config.json of "
            f"{config.text_model!r}, which is neither in this folder nor in the hub's local cache; "
            "copy it into this folder, or start once with the hub in reach"
        )
    named = {"attn_implementation", "_attn_implementation"} & read_json(found / CONFIG).keys()
    if named:
        raise CheckpointError(
            f"{found / CONFIG}: has {named.pop()}, which may name code on the hub; remove it"
        )
    return found


def _built(library: Any, checkpoint: Checkpoint, config: OpenClipConfig, tower: Path | None) -> Any:
    """The model with random weights, as open_clip's `create_model` chooses and builds it."""
    options = {key: value for key, value in config.model.items() if key != "custom_text"}
    vision = {**config.model["vision_cfg"], "timm_model_pretrained": False}
    text = {**config.text, "hf_model_pretrained": False}
    name = str(vision.get("timm_model_name") or "")
    if ":" in name:
        raise CheckpointError(
            f"{checkpoint.folder / OPEN_CLIP_CONFIG}: names the image tower {name!r}, which would "
            "be downloaded; choose a checkpoint whose tower is one of timm's own"
        )
    if tower is not None:
        text["hf_model_name"] = str(tower)
    # CLIP is CustomTextCLIP with the text tower's weights under other names, which open_clip
    # changes while it loads them.
    model_class = library.CoCa if "multimodal_cfg" in options else library.CustomTextCLIP
    try:
        if tower is not None:
            # First by itself, because open_clip would ask on the terminal whether to trust code.
            import transformers

            transformers.AutoConfig.from_pretrained(
                tower, local_files_only=True, trust_remote_code=False
            )
        return model_class(**{**options, "vision_cfg": vision, "text_cfg": text}).eval()
    except Exception as error:  # whatever open_clip, timm or transformers raise
        raise CheckpointError(
            f"{checkpoint.folder / OPEN_CLIP_CONFIG}: open_clip cannot build the model "
            f"({type(error).__name__}: {first_line(error)}); correct the file, or install the "
            "versions that the checkpoint is made for"
        ) from error


def _load_weights(library: Any, checkpoint: Checkpoint, model: nn.Module) -> str | None:
    """Copies the weights into `model`; returns the checksum of a pickle they come from.

    Raises CheckpointError if the file lacks a weight, which would be left random, or holds one that
    the model does not read.
    """
    path, source = open_clip_weights(checkpoint.folder), None
    if path.name == OPEN_CLIP_PICKLE:
        source = pickles.sha256_of(path)
        path = pickles.converted(path, source)
    try:
        names = library.factory.load_state_dict(str(path)).keys()
        report = library.load_checkpoint(model, str(path), strict=False)
    except Exception as error:  # of shapes, mostly
        raise CheckpointError(
            f"model {checkpoint.id!r}: open_clip cannot load its weights ({first_line(error)}); "
            "they are for another open_clip_config.json"
        ) from error
    missing = [*report.missing_keys]
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in names:
        missing.append("logit_bias")  # which open_clip would replace by 0
    refuse_incomplete(checkpoint, type(model).__name__, missing, report.unexpected_keys)
    return source


def _is_tolerant(library: Any, visual: Any) -> bool:
    if isinstance(visual, library.transformer.VisionTransformer):
        return True
    return type(getattr(visual, "trunk", None)).__name__ in _TOLERANT_TRUNKS
