"""The tables of the docs that are made from the code: `python -m docs.tables` writes them.

A test fails while a page differs from what the code says.
"""

import ast
import inspect
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from deployments import settings
from deployments.models.families import FAMILIES
from deployments.models.family import Family
from deployments.settings import MIB, Settings

DOCS = Path(__file__).parent

_POOLING = {
    "projection": "projection",
    "pooler": "pooler",
    "cls": "class token",
    "mean": "mean of the patches",
    "patches": "each patch",
    "tokens": "each token",
}


def families() -> str:
    """A row for each kind of family, with the model types that are of it."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, family in FAMILIES.items():
        rows.setdefault(_family_cells(family), []).append(name)
    lines = [
        "| `model_type` or class | vector of an image | `model.pooling` may also be | texts |",
        "| --- | --- | --- | --- |",
    ]
    for cells, names in rows.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _family_cells(family: Family) -> tuple[str, ...]:
    text = ""
    if family.text is not None:
        length = f"{family.text.max_tokens} tokens, " if family.text.max_tokens else ""
        text = f"{length}{family.text.score}"
    others = ", ".join(f"`{other}`" for other in family.others)
    return _POOLING[family.pooling], others, text


def configuration() -> str:
    """A table for each section of the settings."""
    sentences = _sentences()
    top, sections = [], []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if inspect.isclass(section) and issubclass(section, BaseModel):
            heading = inspect.cleandoc(section.__doc__ or "")
            rows = [
                _row(f"{name}.{key}", value.default, sentences[key, section.__name__])
                for key, value in _fields(section)
            ]
            sections.append(f"## `{name}`\n\n{heading}\n\n{_table(rows)}")
        else:
            top.append(_row(name, field.default, sentences[name, "Settings"]))
    return "\n\n".join([*sections, f"## Others\n\n{_table(top)}"])


def _fields(section: type[BaseModel]) -> list[tuple[str, Any]]:
    """A section's own fields before those that it inherits."""
    own = [(k, f) for k, f in section.model_fields.items() if k in section.__annotations__]
    return own + [(k, f) for k, f in section.model_fields.items() if (k, f) not in own]


def _table(rows: list[str]) -> str:
    return "\n".join(["| setting | default | |", "| --- | --- | --- |", *rows])


def _row(name: str, default: Any, sentence: str) -> str:
    return f"| `{name}` | {_shown(default)} | {sentence.replace('|', '&#124;')} |"


def _shown(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= MIB and default % MIB == 0:
        return f"{default // MIB} MiB"
    if isinstance(default, int | float):
        return f"{default:,g}" if default < 1e6 else f"{default:,}"
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"`{default}`"


def _sentences() -> dict[tuple[str, str], str]:
    """What settings.py says below each field, by the field and each class that has it."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for base in node.bases:
            inherited = {k: s for (k, owner), s in found.items() if owner == ast.unparse(base)}
            found |= {(key, node.name): sentence for key, sentence in inherited.items()}
        for field, said in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(said, ast.Expr)
                and isinstance(said.value, ast.Constant)
            ):
                name = ast.unparse(field.target)
                found[name, node.name] = " ".join(str(said.value.value).split())
    return found


TABLES = {"models.md": ("families", families), "configuration.md": ("settings", configuration)}


def with_tables(page: str, text: str) -> str:
    """The text of a page with its table as the code has it now."""
    marker, make = TABLES[page]
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2] or "\n"
    return f"{before}{begin}\n\n{make()}\n\n{end}{after}"


if __name__ == "__main__":
    for page in TABLES:
        path = DOCS / page
        path.write_text(with_tables(page, path.read_text()))
