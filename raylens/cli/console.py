"""What all commands share: where they print, how they fail, and how they reach the service."""

from collections.abc import Iterator
from contextlib import contextmanager
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


def fail(sentence: str, code: int) -> NoReturn:
    err.print(f"raylens: {sentence}", markup=False, soft_wrap=True)
    raise typer.Exit(code)
