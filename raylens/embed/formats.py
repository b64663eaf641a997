"""Which kind of file a path's ending stands for."""

from pathlib import Path

from raylens.embed.jsonl import JsonLines
from raylens.embed.npy import Npy
from raylens.embed.parquet import Parquet
from raylens.embed.rows import Format, FormatError

FORMATS: dict[str, type[Format]] = {".parquet": Parquet, ".npy": Npy, ".jsonl": JsonLines}


def format_of(out: Path) -> Format:
    """Raises FormatError if there is none, or if what it needs is not installed."""
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise FormatError(f"{out} must end in .parquet, .npy or .jsonl")
    chosen = kind()
    chosen.check()
    return chosen
