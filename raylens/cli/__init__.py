"""The `raylens` command. Exit codes: 0 good, 1 failed, 2 usage, 3 service unreachable."""

from importlib import metadata
from typing import Annotated

import typer

from raylens.cli import embed, keys, service
from raylens.cli.console import out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A self-hosted image embedding service on Ray Serve.",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if show:
        out.print(f"raylens {metadata.version('raylens')}")
        raise typer.Exit


for command in (embed.embed, service.serve, service.export, service.models, service.health):
    app.command()(command)
app.add_typer(keys.app, name="keys")


def main() -> None:
    app()
