"""sentence-transformers' modules.json: which folders of a checkpoint hold which of its modules.

Knows which files a module has; what it computes is left to `models.layouts`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deployments.checkpoints.checkpoint import CheckpointError, read_json_value, remedy

MODULES = "modules.json"

Kind = Literal["Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "CLIPModel"]

# Those with weights of their own; the two that read images and texts come first and alone.
READERS: tuple[Kind, ...] = ("Transformer", "CLIPModel")
WEIGHTED: tuple[Kind, ...] = (*READERS, "Dense", "LayerNorm")
_KINDS: dict[str, Kind] = {
    **{"Transformer": "Transformer", "CLIPModel": "CLIPModel", "Pooling": "Pooling"},
    **{"Dense": "Dense", "Normalize": "Normalize", "LayerNorm": "LayerNorm", "Dropout": "Dropout"},
}
# `sentence_transformers.models.Dense` up to version 5.3, then
# `sentence_transformers.base.modules.dense.Dense`. Sparse and multi-vector models have others.
_CLASS = re.compile(
    r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)\.([\w.]+\.)?(\w+)"
)


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json."""

    kind: Kind
    path: str
    """The module's folder within the checkpoint's, without folders of its own; "" is that folder
    itself."""


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The modules of the checkpoint in `folder`, in their order: the first reads images and texts,
    and the others work on its output.

    Raises CheckpointError, naming the module, for a list that says anything else, or for a module
    that raylens does not have.
    """
    path = folder / MODULES
    entries = read_json_value(path)
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{path}: should hold a list of modules; {remedy(path)}")
    modules = tuple(_module(path, entry) for entry in entries)
    for number, module in enumerate(modules):
        if (number == 0) != (module.kind in READERS):
            raise CheckpointError(
                f"{path}: module {number} is a {module.kind}; raylens serves one "
                f"{' or '.join(READERS)}, with other modules after it"
            )
    return modules


def _module(path: Path, entry: object) -> Module:
    described = entry if isinstance(entry, dict) else {}
    name, place = described.get("type"), described.get("path")
    if not isinstance(name, str) or not isinstance(place, str):
        raise CheckpointError(f"{path}: a module has no type or no path; {remedy(path)}")
    # No wildcards either: this becomes a pattern of files to download.
    if place and (not re.fullmatch(r"[\w.-]+", place) or not place.strip(".")):
        raise CheckpointError(
            f"{path}: names {place!r}, which is not a folder in its own; {remedy(path)}"
        )
    found = _CLASS.fullmatch(name)
    kind = _KINDS.get(found[3]) if found is not None else None
    if kind is None:
        raise CheckpointError(
            f"{path}: the module in {place or '.'!r} is a {name}, which raylens does not have, so "
            f"the vectors would not be the model's; it has {', '.join(_KINDS)}. Choose another "
            "checkpoint"
        )
    return Module(kind, place)
