"""What all commands share: where they print, how they fail, and how they reach the service."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from raylens.client.clients import Client
from raylens.client.errors import ApiError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

FAILED, USAGE, UNREACHABLE = 1, 2, 3
NEEDS_KEY = "the service requires a valid key in RAYLENS_API_KEY"

Url = Annotated[
    str, typer.Option(envvar="RAYLENS_URL", help="The service's address.", show_default=True)
]
ShowProgress = Annotated[
    bool, typer.Option("--progress/--no-progress", help="Show progress on stderr.")
]


@contextmanager
def calling(url: str, *, retries: int = 3) -> Iterator[Client]:
    """A client of the service, inside `service_errors`."""
    with service_errors():
        try:
            client = Client(url, retries=retries)
        except ValueError as error:
            fail(str(error), USAGE)
        with client:
            yield client


@contextmanager
def service_errors() -> Iterator[None]:
    """What the service refuses, and a service that is not there, end the command with a
    sentence."""
    try:
        yield
    except ApiError as error:
        fail(NEEDS_KEY if error.code == "unauthorized" else error.message, FAILED)
    except (ConnectionError, TimeoutError) as error:
        fail(str(error), UNREACHABLE)


def plain(text: str) -> str:
    """A name, or what a server says, cannot command the terminal that shows it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_output(path: Path | None) -> None:
    """Ends the command, before it does anything that takes long, if `path` cannot be written."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        fail(f"cannot write {path}: it is a folder, or its folder is not there", USAGE)
    if not os.access(path if path.exists() else folder, os.W_OK):
        fail(f"cannot write {path}: permission denied", USAGE)


def authorization() -> dict[str, str]:
    """The header with the key of the environment, if it has one."""
    key = os.environ.get("RAYLENS_API_KEY", "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def fail(sentence: str, code: int) -> NoReturn:
    # Some sentences have several lines.
    lines = "\n".join(map(plain, sentence.split("\n")))
    err.print(f"raylens: {lines}", markup=False, soft_wrap=True)
    raise typer.Exit(code)
