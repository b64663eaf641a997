"""`raylens keys`: API keys in a file that the service reads."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from raylens import keys as store
from raylens.cli.console import FAILED, err, fail, out

app = typer.Typer(no_args_is_help=True, help="API keys for the service's auth.keys_file.")

KeysFile = Annotated[
    Path, typer.Option("--file", envvar="RAYLENS_AUTH__KEYS_FILE", help="The file of keys.")
]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Who the key is for.")]


@app.command()
def add(
    name: KeyName,
    file: KeysFile,
    rate: Annotated[str | None, typer.Option(help="Requests, as in 600/minute.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at a time.")] = None,
) -> None:
    """Make a key and show it, only once. Example:

    raylens keys add my-app --file keys --rate 600/minute
    """
    if not re.fullmatch(store.NAME, name):
        raise typer.BadParameter("letters, digits, '.', '_' and '-', at most 64", param_hint="NAME")
    if rate is not None and not re.fullmatch(store.RATE, rate):
        raise typer.BadParameter(
            "a number, a slash and second, minute, hour or day", param_hint="--rate"
        )
    with _keys_errors():
        key = store.add(file, name, rate=rate, concurrency=concurrency)
    err.print(
        f"{name} may send this as Authorization: Bearer …; it is shown only now:", markup=False
    )
    out.print(key, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(file: KeysFile) -> None:
    """List the keys with their limits, but not the keys themselves. Example:

    raylens keys list --file keys
    """
    with _keys_errors():
        kept = store.read(file)
        if not file.exists():
            raise store.KeysError(f"there is no file {file}")
    table = Table("name", "rate", "concurrency", "created")
    for key in kept:
        cells = (key.get(column) for column in ("name", "rate", "concurrency", "created"))
        table.add_row(*(escape("" if value is None else str(value)) for value in cells))
    out.print(table)


@app.command()
def revoke(name: KeyName, file: KeysFile) -> None:
    """Remove a key; a running service refuses it a second later. Example:

    raylens keys revoke my-app --file keys
    """
    with _keys_errors():
        store.revoke(file, name)
    err.print(f"{name} has no key any more", markup=False)


@contextlib.contextmanager
def _keys_errors() -> Iterator[None]:
    try:
        yield
    except store.KeysError as error:
        fail(str(error), FAILED)
