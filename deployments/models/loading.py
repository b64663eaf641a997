"""From a folder of checked files to a torch module.

Knows nothing of pixels. Weights are read from safetensors alone: pickles can run code, and so
can a repository's own modelling code, which is never loaded either.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deployments.checkpoints.checkpoint import Checkpoint, CheckpointError, first_line, read_json
from deployments.checkpoints.layout import CONFIG
from deployments.models.family import Family

# Used in training alone, or computed from the configuration; some files have them.
_WITHOUT_EFFECT = (
    "embeddings.mask_token",
    "num_batches_tracked",
    "position_ids",
    "lm_head.weight",  # what a language model would say
    "relative_position_index",
)


def load_model(checkpoint: Checkpoint, family: Family) -> torch.nn.Module:
    """The parts of the checkpoint's model that `family` uses, float32, on the CPU, for inference.

    Task heads are left out, and so are poolers and text towers that its pooling does not use.
    Raises CheckpointError if transformers cannot build the model or has no such class, if the files
    lack a weight that is used, which would otherwise be left random, or if they hold one for a used
    part that the model does not read, such as an adapter's or the scale of a quantised one.
    """
    import transformers  # takes a second, which finding a folder does not need

    _refuse_own_code(checkpoint, transformers)
    try:
        with _quiet():
            model, report = getattr(transformers, family.model_class).from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                # The file's may be for a GPU, or name code on the hub. None: torch's, or eager.
                attn_implementation=None,
                output_loading_info=True,
                **dict(family.options),
            )
    except Exception as error:  # whatever a model class raises, the checkpoint is to blame
        raise CheckpointError(
            f"model {checkpoint.id!r}: transformers cannot load it ({first_line(error)})"
        ) from error
    _leave_out_unused(model, family)
    missing = report["missing_keys"] & model.state_dict().keys()
    parts = dict(model.named_children())
    # Files of a model with a head have the names of the model proper behind a prefix.
    extra = (name.removeprefix(f"{model.base_model_prefix}.") for name in report["unexpected_keys"])
    others = f", or another model.pooling ({' or '.join(family.others)}), which may do without"
    refuse_incomplete(
        checkpoint,
        type(model).__name__,
        missing,
        unread=[name for name in extra if name.partition(".")[0] in parts],
        instead=others if family.others else "",
    )
    module: torch.nn.Module = model.eval()
    # Not the mapped files: the weights would change with a file that is overwritten, and a shorter
    # one would end the process.
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    return module


def _refuse_own_code(checkpoint: Checkpoint, transformers: Any) -> None:
    """A class of the repository's own may do more than the one of transformers for its
    `model_type`, which would be loaded in its place, without a word."""
    path = checkpoint.folder / CONFIG
    names = read_json(path).get("architectures") or ()
    for name in names if isinstance(names, list | tuple) else (names,):
        if not hasattr(transformers, str(name)):
            raise CheckpointError(
                f"{path}: the model is a {name}, which transformers {transformers.__version__} does"
                " not have, and raylens never runs a repository's own code; choose another "
                "checkpoint, or correct architectures if it says nothing of how items are embedded"
            )


def refuse_incomplete(
    checkpoint: Checkpoint,
    model: str,
    missing: Iterable[str],
    unread: Iterable[str],
    *,
    instead: str = "",
) -> None:
    """Raises CheckpointError if the weights' names are not those of the `model` class.

    `missing` would be left random; `unread` are held by the files in vain. `instead` says what else
    can be done about what is missing.
    """
    missing, unread = _that_matter(missing), _that_matter(unread)
    if unread:
        raise CheckpointError(
            f"model {checkpoint.id!r}: its files hold {len(unread)} weights that {model} does not "
            f"read ({_first(unread)}), so its vectors would not be the model's; merge an adapter, "
            "undo a quantisation, or correct config.json"
        )
    if missing:
        raise CheckpointError(
            f"model {checkpoint.id!r}: its files lack {len(missing)} of the weights that {model} "
            f"needs ({_first(missing)}); use a checkpoint that was saved with them{instead}"
        )


def _that_matter(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.endswith(_WITHOUT_EFFECT))


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _leave_out_unused(model: Any, family: Family) -> None:
    """Unused parts need not be in the files, and take no memory. Model classes skip a pooler of
    None."""
    for head in family.heads:
        setattr(model, head, torch.nn.Identity())
    vision = getattr(model, family.part, model)
    if family.pooling in ("cls", "mean", "patches") or (
        family.pooling == "projection" and family.projects_cls
    ):
        _leave_out_pooler(vision)
    if vision is model:
        return
    used = {family.part}
    if family.pooling == "projection":
        used.add(str(family.projection))
    if family.text is not None:
        used |= {family.text.part, family.text.projection}
        used |= {"logit_scale", "logit_bias", "temperature"}
        if family.text.pooling == "cls":
            _leave_out_pooler(getattr(model, family.text.part))
    parts = (*model.named_children(), *model.named_parameters(recurse=False))
    for name in {name for name, _ in parts} - used:
        setattr(model, name, None)


def _leave_out_pooler(model: Any) -> None:
    # Convolutional networks always call theirs, which has no weights.
    if list(model.pooler.parameters() if getattr(model, "pooler", None) is not None else ()):
        model.pooler = None


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
