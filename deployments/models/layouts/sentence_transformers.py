"""Checkpoints in sentence-transformers' layout: a modules.json, and a folder for each module.

The first module is a model of transformers, which is loaded as any other of it; `heads` are the
modules behind it. Needs nothing of the library itself.
"""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from torch import nn

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, read_json
from deployments.checkpoints.integrity import SENTENCE_TRANSFORMERS, identity
from deployments.checkpoints.layout import layout_of
from deployments.checkpoints.modules import MODULES, Module, read_modules
from deployments.models.families import choose_family
from deployments.models.layouts import transformers
from deployments.models.layouts.halves import Vision
from deployments.models.layouts.head_files import read_heads
from deployments.models.layouts.heads import TOKENS, Heads, ImageTokens, Truncate
from deployments.models.layouts.layout import LoadedCheckpoint, TextHalf
from deployments.models.layouts.reading import Reading, read_reading
from deployments.models.layouts.text_models import load_text_model
from deployments.models.loading import load_model
from deployments.models.spec import read_preprocessing
from deployments.settings import ModelSettings
from deployments.wire import PatchSpec

_TOKENIZER_CONFIG = "tokenizer_config.json"


def load(checkpoint: Checkpoint, settings: ModelSettings) -> LoadedCheckpoint:
    """Raises CheckpointError if the model cannot be served."""
    if settings.pooling != "auto":
        raise CheckpointError(
            f"model.pooling is {settings.pooling!r}, but {MODULES} of {checkpoint.id!r} says how "
            "the model pools; set it to 'auto'"
        )
    modules = read_modules(checkpoint.folder)
    inner, reading = _first(checkpoint, modules)
    if reading.image is None:
        raise CheckpointError(
            f"model {checkpoint.id!r} reads texts alone, as {reading.path} says, and raylens serves"
            " models that embed images. If it was trained into the space of an image model's "
            "vectors, set model.id to that one and model.text_id to this one"
        )
    if (reading.image == "hidden") != (reading.gives == TOKENS):
        raise CheckpointError(
            f"{reading.path}: module_output_name {reading.gives} does not fit what its "
            "modality_config of image gives; choose another checkpoint"
        )
    if reading.image == "hidden":
        loaded = _load_hidden(inner)
    else:
        pooling = "projection" if reading.image == "features" else "pooler"
        loaded = transformers.load(inner, settings.model_copy(update={"pooling": pooling}))
    if isinstance(loaded.preprocessing.pixels, PatchSpec):
        raise CheckpointError(
            f"model {checkpoint.id!r} takes patches (NaFlex), which raylens does not have with "
            f"{MODULES}; set model.id to the model of transformers that it is made of"
        )
    vision = Heads(loaded.vision, reading.gives, _heads(checkpoint, modules, reading))
    text = None
    if loaded.text is not None and reading.text is not None:
        text = _as_read(loaded.text, inner, reading)
        _check_use(checkpoint, modules)
        tower = Heads(text.tower, reading.gives, _heads(checkpoint, modules, reading))
        text = replace(text, tower=tower)
    return replace(
        loaded,
        vision=vision,
        text=text,
        pooling="modules",
        rules=repr((loaded.rules, modules, reading.image, reading.text, reading.gives)),
    )


def with_text_of(loaded: LoadedCheckpoint, checkpoint: Checkpoint) -> LoadedCheckpoint:
    """`loaded` with its texts read by the text model in `checkpoint`, which was trained into the
    space of its images: what `model.text_id` names. Scores stay those of `loaded`.

    Raises CheckpointError if either does not fit.
    """
    if layout_of(checkpoint.folder) != "sentence_transformers":
        raise CheckpointError(
            f"model.text_id is {checkpoint.id!r}, which has no {MODULES}; it should be a text "
            "model of sentence-transformers"
        )
    if loaded.text is None:
        raise CheckpointError(
            f"model.text_id is {checkpoint.id!r}, but model.id is no model of images and texts, "
            "whose logit scale is needed; correct either"
        )
    modules = read_modules(checkpoint.folder)
    inner, reading = _first(checkpoint, modules)
    if (reading.image, reading.text, reading.gives) != (None, "hidden", TOKENS):
        raise CheckpointError(
            f"model.text_id is {checkpoint.id!r}, which is no text model alone, as {reading.path} "
            "says; correct it, or make it model.id"
        )
    _check_use(checkpoint, modules)
    model, tokenizer, max_tokens = load_text_model(inner, max_tokens=_limit(inner, reading))
    tower = Heads(model, reading.gives, _heads(checkpoint, modules, reading))
    spec = replace(loaded.text.spec, max_tokens=max_tokens)
    return replace(
        loaded,
        text=TextHalf(tower, spec, tokenizer),
        rules=repr((loaded.rules, identity(checkpoint), modules)),
    )


def _first(checkpoint: Checkpoint, modules: tuple[Module, ...]) -> tuple[Checkpoint, Reading]:
    """The model of transformers within the checkpoint, and how it is run."""
    inner = replace(checkpoint, folder=checkpoint.folder / modules[0].path)
    return inner, read_reading(inner.folder, modules[0].kind)


def _load_hidden(inner: Checkpoint) -> LoadedCheckpoint:
    """A vision model that gives its last hidden state; what pools it are modules."""
    try:
        family = choose_family(inner, "mean")  # which needs no pooler
    except CheckpointError:  # not in the table, which is only needed to know how a model pools
        family = choose_family(inner, "cls")
    model = load_model(inner, family)
    return LoadedCheckpoint(
        vision=ImageTokens(Vision(model, family)),
        preprocessing=read_preprocessing(inner.folder),
        text=None,
        pooling="modules",
        tolerant=family.tolerant,
        rules=repr(family),
    )


def _as_read(text: TextHalf, inner: Checkpoint, reading: Reading) -> TextHalf:
    """The half of transformers' layout, if sentence-transformers reads texts in the same way."""
    rules = choose_family(inner, "projection").text
    assert rules is not None  # noqa: S101  (the half was made with them)
    if reading.text != "features":
        raise CheckpointError(
            f"{reading.path}: texts become vectors in another way than images; choose another "
            "checkpoint"
        )
    if rules.padding == "max_length" and reading.pads_to != text.spec.max_tokens:
        raise CheckpointError(
            f"{reading.path}: texts would be padded to the longest of each batch, so that the "
            "vector of one depends on the others, because this model reads what stands in padding; "
            f'set processing_kwargs to {{"text": {{"padding": "max_length", "max_length": '
            f"{text.spec.max_tokens}}}}}, or remove text from modality_config"
        )
    limit = min(text.spec.max_tokens, _limit(inner, reading) or text.spec.max_tokens)
    return replace(text, spec=replace(text.spec, max_tokens=limit))


def _limit(inner: Checkpoint, reading: Reading) -> int | None:
    """Where sentence-transformers cuts texts."""
    path = inner.folder / _TOKENIZER_CONFIG
    own = read_json(path).get("model_max_length") if path.is_file() else None
    if reading.max_tokens is not None or not isinstance(own, int | float):
        return reading.max_tokens
    return int(own) if 1 <= own < inf else None


def _heads(checkpoint: Checkpoint, modules: tuple[Module, ...], reading: Reading) -> nn.ModuleList:
    """The modules behind the model, with weights of their own at each call."""
    heads = read_heads(checkpoint.folder, modules[1:], reading.gives)
    path, config = _whole(checkpoint)
    dimensions = config.get("truncate_dim")
    if dimensions is not None:
        if type(dimensions) is not int or dimensions < 1:
            raise CheckpointError(
                f"{path}: truncate_dim is {dimensions!r}, and should be 1 or more; correct it"
            )
        heads.append(Truncate(dimensions))
    return heads


def _check_use(checkpoint: Checkpoint, modules: tuple[Module, ...]) -> None:
    """Raises CheckpointError if texts are not to be embedded, and compared, as raylens does."""
    path, config = _whole(checkpoint)
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    if name is not None and not (isinstance(prompts, dict) and prompts.get(name) == ""):
        raise CheckpointError(
            f"{path}: texts begin with the prompt {name!r} unless told otherwise, which raylens "
            "does not add; set default_prompt_name to null and put the prompt into your texts"
        )
    similarity = config.get("similarity_fn_name") or "cosine"
    # Vectors of length 1 are in the same order by all of them.
    if similarity != "cosine" and modules[-1].kind != "Normalize":
        raise CheckpointError(
            f"{path}: similarity_fn_name is {similarity!r}, and raylens compares images and texts "
            "by cosines; set it to cosine if that is right for the model, or choose another"
        )


def _whole(checkpoint: Checkpoint) -> tuple[Path, dict[str, Any]]:
    """The file about the model as a whole, which the oldest ones do not have."""
    path = checkpoint.folder / SENTENCE_TRANSFORMERS
    config = read_json(path) if path.is_file() else {}
    kind = config.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise CheckpointError(
            f"{path}: the model is a {kind}, which does not give one vector for each item; choose "
            "another checkpoint"
        )
    return path, config
