"""Checkpoints in the layout of transformers: a config.json with a `model_type`."""

from torch import nn

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError
from deployments.checkpoints.integrity import preprocessor_settings
from deployments.models.families import choose_family
from deployments.models.layouts import colpali
from deployments.models.layouts.halves import TextTower, Vision, embeddings_of, read_text_spec
from deployments.models.layouts.layout import LoadedCheckpoint, TextHalf
from deployments.models.layouts.naflex import PatchVision
from deployments.models.loading import load_model
from deployments.models.spec import read_preprocessing
from deployments.models.texts import read_tokenizer
from deployments.settings import ModelSettings
from deployments.wire import PatchSpec


def load(checkpoint: Checkpoint, settings: ModelSettings) -> LoadedCheckpoint:
    """Raises CheckpointError if the model cannot be served."""
    family = choose_family(checkpoint, settings.pooling)
    preprocessing = read_preprocessing(checkpoint.folder, settings.max_num_patches)
    if family.takes_patches != isinstance(preprocessing.pixels, PatchSpec):
        raise CheckpointError(
            f"{preprocessor_settings(checkpoint.folder)[0]}: its image processor is not for the "
            "model_type in config.json, because only NaFlex models take patches, and nothing else; "
            "correct one of the two"
        )
    model = load_model(checkpoint, family)
    text = None
    vision: nn.Module
    if family.pooling == "tokens" and family.text is not None:
        vision, text = colpali.halves(checkpoint, model, family.text)
    else:
        vision = (PatchVision if family.takes_patches else Vision)(model, family)
    if family.text is not None and text is None:
        spec = read_text_spec(model, family.text)
        tokenizer = read_tokenizer(
            checkpoint.folder,
            max_tokens=spec.max_tokens,
            embeddings=embeddings_of(model),
            reads_padding=family.text.padding != "eos",
            pools_at_eos=family.text.pooling == "eos",
            lower_cases_gemma=family.text.lower_cases_gemma,
        )
        tower = TextTower(
            model,
            family.text,
            max_tokens=spec.max_tokens,
            pad_id=tokenizer.pad_id,
            pad_left=tokenizer.pad_left,
            eos_id=tokenizer.eos_id,
        )
        text = TextHalf(tower, spec, tokenizer)
    return LoadedCheckpoint(
        vision=vision,
        preprocessing=preprocessing,
        text=text,
        pooling=family.pooling,
        tolerant=family.tolerant,
        rules=repr(family),
        several=family.pooling in ("patches", "tokens"),
    )
