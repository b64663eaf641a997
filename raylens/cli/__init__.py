"""The `raylens` command. Exit codes: 0 good, 1 failed, 2 usage, 3 service unreachable."""

from importlib import metadata
from typing import Annotated

import typer

from raylens.cli import bulk, collection, embed, keys, service
from raylens.cli.bench import bench
from raylens.cli.console import out
from raylens.cli.plan import plan

app = typer.Typer(
    no_args_is_help=True,
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


# In the order in which `raylens --help` shows them.
for command in (
    service.serve,
    service.health,
    service.models,
    service.export,
    embed.embed,
    collection.search,
    collection.dedupe,
):
    app.command()(command)
app.command("map")(collection.map_)
app.command()(bulk.bulk)
app.command()(bench)
app.command()(plan)
app.add_typer(keys.app, name="keys")


def main() -> None:
    app()
