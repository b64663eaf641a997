"""What raylens serves, on paper: for the docs, and for `raylens models --supported`.

Nothing here decides anything, and nothing that it imports loads torch.
"""

from dataclasses import dataclass

from deployments.checkpoints.checkpoint import Layout
from deployments.models.families import FAMILIES
from deployments.models.family import Family, Pooling, TextRules


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """A layout of checkpoints, in words."""

    name: str
    told_by: str
    """What tells it from others."""
    vector: str
    extra: str = ""
    """What of `pip install 'raylens[…]'` it needs besides `server`."""


LAYOUTS: dict[Layout, LayoutRow] = {
    "transformers": LayoutRow("transformers", "model_type in config.json", "its family's"),
    "timm": LayoutRow(
        "timm", "architecture in config.json", "what its classifier would get", "timm"
    ),
    "open_clip": LayoutRow("OpenCLIP", "open_clip_config.json", "projection", "openclip"),
    "sentence_transformers": LayoutRow(
        "sentence-transformers", "modules.json", "what its modules make"
    ),
}


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """Families of transformers' layout that are served alike, in words."""

    names: tuple[str, ...]
    """The `model_type` of each, or its class, if one type is saved in two ways."""
    vector: str
    others: tuple[Pooling, ...]
    """What `model.pooling` may ask for instead."""
    texts: str


_VECTORS: dict[Pooling, str] = {
    "projection": "projection",
    "pooler": "pooler",
    "cls": "class token",
    "mean": "mean of the patches",
    "patches": "each patch",
    "tokens": "each token",
}


def families() -> list[FamilyRow]:
    """A row for each kind of family."""
    kinds: dict[tuple[str, tuple[Pooling, ...], str], list[str]] = {}
    for name, family in FAMILIES.items():
        kinds.setdefault(_in_words(family), []).append(name)
    return [FamilyRow(tuple(names), *kind) for kind, names in kinds.items()]


def _in_words(family: Family) -> tuple[str, tuple[Pooling, ...], str]:
    return _VECTORS[family.pooling], family.others, _texts(family.text)


def _texts(text: TextRules | None) -> str:
    if text is None:
        return ""
    length = f"{text.max_tokens} tokens, " if text.max_tokens else ""
    return f"{length}{text.score}"
