"""How sentence-transformers runs a model of transformers, as sentence_bert_config.json says.

That file tells which method of the model reads images and which reads texts. Without it, or
without its `modality_config`, a module of class Transformer reads texts alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployments.checkpoints.checkpoint import CheckpointError, read_json
from deployments.checkpoints.modules import Kind
from deployments.models.layouts.heads import TOKENS, VECTOR, Feature

Way = Literal["features", "pooler", "hidden"]
"""What becomes the module's output: what the model maps into the space that images and texts share,
its pooler's output, or its last hidden state."""

# The names that the library has used, in the order in which it looks for them.
_NAMES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Without effect on vectors, or only for the tasks "query" and "document", which raylens has not.
_HARMLESS = ("unpad_inputs", "query_length", "document_length")
_ARGUMENTS = (
    *("model_args", "model_kwargs", "config_args", "config_kwargs"),
    *("tokenizer_args", "processor_kwargs"),
)
_HARMLESS_ARGUMENTS = {"torch_dtype", "dtype", "attn_implementation", "trust_remote_code"}
_CLIP = {
    "modality_config": {
        modality: {"method": f"get_{modality}_features", "method_output_name": "pooler_output"}
        for modality in ("image", "text")
    },
    "module_output_name": VECTOR,
}
_TEXT = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": TOKENS,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a checkpoint's first module does with images and with texts."""

    path: Path
    """The file that says so."""
    gives: Feature
    image: Way | None
    text: Way | None
    max_tokens: int | None
    """Where texts are cut, unless the model or its tokenizer cuts them earlier."""
    pads_to: int | None
    """How many tokens all texts are padded to; None: as many as the longest of a batch has."""


def read_reading(folder: Path, kind: Kind) -> Reading:
    """`folder` is the module's own, and `kind` its class.

    Raises CheckpointError for what raylens does not do.
    """
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    path = found[0] if found else folder / _NAMES[0]
    keys = read_json(path) if found else {}
    if "modality_config" not in keys:
        keys = {**keys, **(_CLIP if kind == "CLIPModel" else _TEXT)}
    gives = keys.pop("module_output_name", None)
    if gives not in (TOKENS, VECTOR):
        raise _refusal(path, "module_output_name", gives)
    modalities = keys.pop("modality_config")
    if not isinstance(modalities, dict) or "message" in modalities:
        # Where there is a template of messages, the library wraps everything in it.
        raise _refusal(path, "modality_config", modalities)
    for name in _HARMLESS:
        keys.pop(name, None)
    max_tokens = keys.pop("max_seq_length", None)
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise _refusal(path, "max_seq_length", max_tokens)
    if keys.pop("transformer_task", None) not in (None, "feature-extraction"):
        raise CheckpointError(f"{path}: is of a model that does not embed; choose another")
    text = keys.pop("processing_kwargs", None) or {}
    limit, pads = _texts(path, text)
    for name in _ARGUMENTS:
        arguments = keys.get(name) or {}
        if isinstance(arguments, dict) and {*arguments} <= _HARMLESS_ARGUMENTS:
            keys.pop(name, None)
    for name, value in keys.items():
        if value not in (None, False, {}):
            raise _refusal(path, name, value)
    return Reading(
        path,
        gives,
        image=_way(path, modalities, "image"),
        text=_way(path, modalities, "text"),
        max_tokens=limit or max_tokens,
        pads_to=limit if pads else None,
    )


def _texts(path: Path, keys: Any) -> tuple[int | None, bool]:
    """`max_length` of the tokenizer, and whether texts are padded to it."""
    text = (keys.get("text") or {}) if isinstance(keys, dict) and {*keys} <= {"text"} else None
    if not isinstance(text, dict):
        raise _refusal(path, "processing_kwargs", keys)
    text = dict(text)
    limit, padding = text.pop("max_length", None), text.pop("padding", True)
    cuts = text.pop("truncation", True) in (True, "longest_first")
    is_number = limit is None or (type(limit) is int and limit > 0)
    is_known = padding is True or (padding == "max_length" and limit is not None)
    if text or not cuts or not is_number or not is_known:
        raise _refusal(path, "processing_kwargs", keys)
    return limit, padding == "max_length"


def _way(path: Path, modalities: Mapping[str, Any], modality: str) -> Way | None:
    if modality not in modalities:
        return None
    entry = modalities[modality]
    method, output = (
        (entry.get("method"), entry.get("method_output_name"))
        if isinstance(entry, dict)
        else (None, None)
    )
    if method == f"get_{modality}_features" and output in ("pooler_output", None):
        return "features"
    if method == "forward" and output == "last_hidden_state":
        return "hidden"
    if method == "forward" and output == "pooler_output" and modality == "image":
        return "pooler"
    raise _refusal(path, f"modality_config of {modality}", entry)


def _refusal(path: Path, name: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{path}: {name} is {value!r}, which raylens does not do, so the vectors would not be the "
        "model's; choose another checkpoint"
    )
