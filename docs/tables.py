"""The tables of the docs that are made from the code: `python -m docs.tables` writes them.

A test fails while a page differs from what the code says.
"""

import ast
import inspect
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from deployments import settings
from deployments.metrics.declared import EmbedderMetrics, IngressMetrics, ReplicaMetrics
from deployments.models import supported
from deployments.settings import MIB, Settings
from docs.most_used import MOST_USED, Published, Verdict, verdict

DOCS = Path(__file__).parent


def layouts() -> str:
    """A row for each layout of checkpoints."""
    lines = ["| layout | told by | vector of an image | extra |", "| --- | --- | --- | --- |"]
    for row in supported.LAYOUTS.values():
        extra = f"`{row.extra}`" if row.extra else ""
        lines.append(f"| {row.name} | {row.told_by} | {row.vector} | {extra} |")
    return "\n".join(lines)


def families() -> str:
    """A row for each kind of family, with the model types that are of it."""
    lines = [
        "| `model_type` or class | vector of an image | `model.pooling` may also be | texts |",
        "| --- | --- | --- | --- |",
    ]
    for row in supported.families():
        names, others = (", ".join(f"`{c}`" for c in cells) for cells in (row.names, row.others))
        lines.append(f"| {names} | {row.vector} | {others} | {row.texts} |")
    return "\n".join(lines)


def checkpoints() -> str:
    """A row for each of the most used checkpoints, by what they are for."""
    lines = ["| checkpoint | layout | |", "| --- | --- | --- |"]
    for heading, group in MOST_USED.items():
        lines.append(f"| **{heading}** | | |")
        for published in group:
            found = verdict(published)
            lines.append(f"| `{published.id}` | {found.layout} | {_answer(published, found)} |")
    return "\n".join(lines)


def _answer(published: Published, found: Verdict) -> str:
    if published.text_of:
        return f"served as `model.text_id` of `{published.text_of}`"
    if found.refusal:
        return f"refused, because {found.refusal}"
    return f"served with the extra `{found.extra}`" if found.extra else "served"


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


def metrics() -> str:
    """A row for each metric of raylens, the ingress's first."""
    lines = ["| metric | kind | labels | |", "| --- | --- | --- | --- |"]
    for metric in (*IngressMetrics(), *EmbedderMetrics(), *ReplicaMetrics()):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.description} |")
    return "\n".join(lines)


TABLES = {
    "models.md": {"layouts": layouts, "families": families},
    "checkpoints.md": {"checkpoints": checkpoints},
    "configuration.md": {"settings": configuration},
    "operations.md": {"metrics": metrics},
}


def with_tables(page: str, text: str) -> str:
    """The text of a page with its tables as the code has them now."""
    for marker, make in TABLES[page].items():
        begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"{page} has no {begin}")
        after = rest.partition(end)[2] or "\n"
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    for page in TABLES:
        path = DOCS / page
        path.write_text(with_tables(page, path.read_text()))
