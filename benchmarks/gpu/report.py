"""Rows as they come: on disk after each, so that a kill loses nothing, and as tables at the end."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""`phase` and what was measured; then figures, or in `without` why there are none."""

_NAMES = ("geometry", "mode", "precision", "photo", "batch", "processes")


class Report:
    def __init__(self, facts: dict[str, Any], path: Path | None = None) -> None:
        self.facts = facts
        self.rows: list[Row] = []
        self._path = path
        self._write(complete=False)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self._write(complete=False)

    def finish(self) -> None:
        self._write(complete=True)

    def _write(self, *, complete: bool) -> None:
        if self._path is None:
            return
        found = {"facts": self.facts, "complete": complete, "rows": self.rows}
        aside = self._path.with_name(self._path.name + ".new")
        aside.write_text(json.dumps(found, indent=1) + "\n")
        aside.replace(self._path)

    def tables(self) -> str:
        """For people: a table for each phase, then what is missing and why."""
        parts = [", ".join(f"{key} {value}" for key, value in self.facts.items())]
        for phase in dict.fromkeys(row["phase"] for row in self.rows):
            rows = [row for row in self.rows if row["phase"] == phase and "without" not in row]
            if rows:
                parts.append(f"{phase}\n{_table(_by_batch(rows) if phase == 'encoder' else rows)}")
        without = [f"{label(row)}: {row['without']}" for row in self.rows if "without" in row]
        if without:
            parts.append("Not measured:\n" + "\n".join(without))
        return "\n\n".join(parts)


def label(row: Row) -> str:
    """A row's name in one line."""
    named = (
        f"{name} {row[name]}" if name == "batch" else str(row[name])
        for name in _NAMES
        if name in row
    )
    return " ".join((f"{row['phase']}:", *named))


def _by_batch(rows: Iterable[Row]) -> list[Row]:
    """Images/s of all batches side by side, and the most memory that any of them took."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = (row["geometry"], row["mode"], row["precision"])
        line = found.setdefault(key, dict(zip(("geometry", "mode", "precision"), key, strict=True)))
        line[f"{row['batch']}"] = row["images_per_s"]
        if row.get("peak_mb") is not None:
            line["peak_mb"] = max(line.pop("peak_mb", 0), row["peak_mb"])
    return list(found.values())


def _table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "phase"))
    columns.sort(
        key=lambda column: (not column.isdigit(), 0) if column not in _NAMES else (False, -1)
    )
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
    return str(value)
