"""The `raylens` command. Exit codes: 0 good, 1 failed, 2 usage, 3 service unreachable."""

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A self-hosted image embedding service on Ray Serve.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

FAILED, UNREACHABLE = 1, 3

Url = Annotated[
    str, typer.Option(envvar="RAYLENS_URL", help="The service's address.", show_default=True)
]
DEFAULT_URL = "http://127.0.0.1:8000"


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Argument(help="A Serve config; without one, the bundled model.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address instead.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port instead.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS", help="Deploy to this Ray instead of starting one on loopback."
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the service to get ready.")
    ] = 600.0,
) -> None:
    """Run the service until Ctrl-C."""
    from raylens import serving

    try:
        chosen = serving.read_config(config or serving.default_config(), host=host, port=port)
    except serving.ServingError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG") from None
    try:
        serving.run(chosen, address=address, wait_s=wait)
    except serving.ServingError as error:
        err.print(f"raylens: {error}", style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(FAILED) from None


@app.command()
def models(url: Url = DEFAULT_URL) -> None:
    """Show the model that the service has."""
    table = Table("model", "dimensions", "image size", "precision", "device")
    body = _get(url, "/v1/models").json()
    for model in body["data"]:
        table.add_row(
            model["id"],
            str(model["dimensions"]),
            str(model["image_size"]),
            model["precision"],
            f"{model['device']} ({model['device_reason']})",
        )
    out.print(table)


@app.command()
def health(url: Url = DEFAULT_URL) -> None:
    """Ask whether the service is ready; 0 if it is, 1 if not yet, 3 if nobody answers."""
    body = _get(url, "/readyz").json()
    out.print(f"ready: {body['model']} at {url}")


def _get(url: str, path: str) -> httpx.Response:
    """The answer to a GET, or an end with the exit code that says what is wrong."""
    try:
        response = httpx.get(url.rstrip("/") + path, timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        err.print(f"raylens: nobody answers at {url} ({error})", markup=False, soft_wrap=True)
        raise typer.Exit(UNREACHABLE) from None
    if response.status_code != 200:
        err.print(f"raylens: {_message(response)}", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED)
    return response


def _message(response: httpx.Response) -> Any:
    try:
        return response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered with status {response.status_code}"


def main() -> None:
    app()
