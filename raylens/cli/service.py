"""`raylens serve`, `export`, `models` and `health`: running a service and asking about it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.markup import escape
from rich.table import Column, Table

from raylens.cli.console import FAILED, NEEDS_KEY, UNREACHABLE, Url, authorization, fail, out, plain
from raylens.client.http import DEFAULT_URL, needs_proxy

# As in the settings, which a client-only installation lacks.
Pooling = Literal["auto", "cls", "mean", "pooler", "projection", "patches"]
Precision = Literal["auto", "fastest", "float32", "bfloat16", "float16", "int8"]


def serve(
    config: Annotated[
        Path | None, typer.Argument(help="A Serve config; without one, the bundled model.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address instead.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Listen on this port instead.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Deploy to this Ray instead of starting one."),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the service to become ready.")
    ] = 600.0,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Run Ray's dashboard too; it takes 220 MB.")
    ] = False,
) -> None:
    """Run the service until Ctrl-C. Example:

    raylens serve configs/clip.yaml --port 8080
    """
    try:
        from raylens import serving
    except ModuleNotFoundError:  # a client-only installation
        fail("serving needs the server's packages: pip install 'raylens[server]'", FAILED)
    try:
        chosen = serving.read_config(config or serving.default_config(), host=host, port=port)
    except serving.ServingError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG") from None
    try:
        serving.run(chosen, address=address, wait_s=wait, dashboard=dashboard)
    except serving.ServingError as error:
        fail(str(error), FAILED)


def export(
    model: Annotated[
        str, typer.Argument(help="A Hugging Face id, a checkpoint's folder or efficientnet-lite0.")
    ],
    to: Annotated[
        str | None,
        typer.Option(help="A folder, or an s3:// or gs:// URI, for `model.exports` to name."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of the id.")] = None,
    text_id: Annotated[
        str | None, typer.Option(help="As in model.text_id: what reads the texts instead.")
    ] = None,
    text_revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of --text-id.")
    ] = None,
    pooling: Annotated[Pooling, typer.Option(help="As in model.pooling.")] = "auto",
    max_num_patches: Annotated[
        int | None, typer.Option(help="As in model.max_num_patches.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="With int8 or fastest, export an 8-bit model as well.")
    ] = "auto",
) -> None:
    """Export a model for CPUs ahead of time, so that replicas need not do it when they start.

    Without --to, it goes to this user's cache, where the service looks first. Example:

    raylens export openai/clip-vit-base-patch32 --to s3://bucket/exports
    """
    from raylens import exporting

    if text_revision is not None and text_id is None:
        raise typer.BadParameter("needs a --text-id", param_hint="--text-revision")
    settings = {
        **{"id": model, "revision": revision, "pooling": pooling},
        **{"text_id": text_id, "text_revision": text_revision},
        **{"max_num_patches": max_num_patches, "precision": precision},
    }
    try:
        exported = exporting.export(settings, to=to)
    except exporting.ExportError as error:
        fail(str(error), FAILED)
    out.print(exported, markup=False, soft_wrap=True)


def models(
    supported: Annotated[
        bool, typer.Option("--supported", help="List what raylens can serve; asks no service.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the models that the service has, or all kinds that raylens can serve. Example:

    raylens models --url http://10.0.0.5:8000
    raylens models --supported
    """
    if supported:
        _print_supported()
        return
    body = _get(url, "/v1/models")
    columns = ("id", "dimensions", "image_size", "max_text_tokens", "precision", "engine", "device")
    # A long name continues on the next line, because callers need all of it.
    table = Table(Column("model", overflow="fold"), "size", "pixels", "tokens", "in", "by", "on")
    reasons = []
    with _expecting_raylens(url):
        for model in body["data"]:
            row = ["no text" if model[c] is None else str(model[c]) for c in columns]
            table.add_row(*(escape(plain(cell)) for cell in row))
            reasons += [
                f"{model['id']}: {what}: {model[f'{what}_reason']}"
                for what in ("engine", "device", "precision")
            ]
    out.print(table)
    out.print("\n".join(map(plain, reasons)), markup=False, soft_wrap=True)


def _print_supported() -> None:
    try:
        from deployments.models.supported import LAYOUTS, families
    except ModuleNotFoundError:  # a client-only installation
        fail("this needs the server's packages: pip install 'raylens[server]'", FAILED)
    layouts = Table(
        *(Column(name, no_wrap=True) for name in ("layout", "told by")),
        "vector of an image",
        "extra",
    )
    for layout in LAYOUTS.values():
        layouts.add_row(layout.name, layout.told_by, layout.vector, layout.extra)
    out.print(layouts)
    kinds = Table(
        *(
            Column("family of transformers", no_wrap=True),
            "vector of an image",
            "or pooling",
            "texts",
        ),
        show_lines=True,
    )
    for kind in families():
        kinds.add_row("\n".join(kind.names), kind.vector, "\n".join(kind.others), kind.texts)
    out.print(kinds)
    out.print("An extra is installed as in: pip install 'raylens[timm]'", markup=False)


def health(url: Url = DEFAULT_URL) -> None:
    """Check whether the service is ready; exits with 0 if it is, 1 if not, 3 if unreachable.

    Example:

    raylens health && echo ready
    """
    body = _get(url, "/readyz")
    with _expecting_raylens(url):
        out.print(plain(f"ready: {body['model']} at {url}"), markup=False)


def _get(url: str, path: str) -> Any:
    """The JSON answer to a GET. Exits with a message and the right code if there is none."""
    try:
        response = httpx.get(
            url.rstrip("/") + path,
            headers=authorization(),
            timeout=30,
            trust_env=needs_proxy(url),
        )
    except httpx.LocalProtocolError:  # its text contains the header, and so the key
        fail("RAYLENS_API_KEY has characters that no key has", FAILED)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(f"nothing answers at {url} ({error})", UNREACHABLE)
    if response.status_code == 401 and _error(response, "code") == "unauthorized":
        fail(NEEDS_KEY, FAILED)
    if response.status_code != 200:
        unknown = f"{response.url} answered with status {response.status_code}"
        fail(_error(response, "message") or unknown, FAILED)
    with _expecting_raylens(url):
        return response.json()


@contextlib.contextmanager
def _expecting_raylens(url: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError):
        fail(f"what answers at {url} is not raylens", FAILED)


def _error(response: httpx.Response, part: str) -> str | None:
    """The `code` or `message` of one of raylens's own errors; None for any other answer."""
    try:
        return str(response.json()["error"][part])
    except (ValueError, LookupError, TypeError):
        return None
