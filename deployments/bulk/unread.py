"""How a row says that its image could not be read. Knows neither files nor images."""

import pyarrow as pa

COLUMN = "_unread"
"""What was wrong with a row before anyone looked at its image, as "code: message"; or null."""

CODE = "unreadable_file"
"""Of what cannot be read where it is; the service has no such error."""

NO_ROOT = "path_not_found: Files are read only below a folder that is named as their root."


def reasons(table: pa.Table) -> list[str | None]:
    """Of each row, from that column if the table has it."""
    if COLUMN not in table.column_names:
        return [None] * len(table)
    whys: list[str | None] = table[COLUMN].to_pylist()
    return whys


def unreadable(error: Exception) -> str:
    """What a row says of a file whose reading raised this."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"{CODE}: The file cannot be read ({reason})."


def not_below(root: object) -> str:
    """What a row says that names a file elsewhere, or one that is not there."""
    return f"path_not_found: There is no such file below {root}."
