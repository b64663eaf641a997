"""What `raylens search` searches for: checked, and embedded by the model that made the rest."""

from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from raylens.cli.console import FAILED, USAGE, fail, plain
from raylens.client.clients import Client
from raylens.client.items import local_file
from raylens.embed.sources import ENDINGS
from raylens.embeddings.reading import Embeddings

_PICTURES = (*ENDINGS, ".heic")  # which the service does not read, but is no text either


def check(query: str) -> None:
    """A mistyped file must not be searched for as a text."""
    if not query.strip():
        raise typer.BadParameter("must not be empty", param_hint="QUERY")
    if local_file(query) is None and "://" not in query[:10] and not query.startswith("data:"):
        is_folder = len(query) < 4096 and "\0" not in query and _is_folder(query)
        if is_folder or query.lower().endswith(_PICTURES):
            what = "is a folder" if is_folder else "is not there"
            raise typer.BadParameter(f"the file {plain(query)} {what}", param_hint="QUERY")


def _is_folder(query: str) -> bool:
    """A word of a text may be a folder's name too; a path with a slash is meant as one."""
    try:
        return "/" in query and Path(query).is_dir()
    except OSError:
        return False


def embedded(
    client: Client, query: str, embeddings: Embeddings, file: Path, url: str
) -> NDArray[np.float32]:
    """The query's vector, by the model that made the embeddings."""
    served = client.models()
    names = {name: m for m in served for name in (*m.get("aliases", ()), m["id"])}
    model = names.get(str(embeddings.model))
    if model is None:
        others = ", ".join(m["id"] for m in served)
        if embeddings.model is None:
            fail(f"{file} does not say which model made it: embed the images again", FAILED)
        fail(
            f"{file} was made by the model {embeddings.model}, but {url} serves {others}: serve "
            "that one, or embed the images again",
            FAILED,
        )
    if embeddings.revision not in (None, model["revision"]):
        fail(
            f"{file} was made by revision {embeddings.revision} of {model['id']}, but {url} "
            f"serves {model['revision']}: serve that one, or embed the images again",
            FAILED,
        )
    if model.get("vectors_per_image", 1) > 1:
        fail(
            f"{model['id']} gives {model['vectors_per_image']} vectors for each image now: serve "
            "it as when the images were embedded",
            FAILED,
        )
    length = embeddings.dimensions or int(model["dimensions"])
    if length != model["dimensions"] and not model["matryoshka"]:
        fail(
            f"the vectors of {file} have {length} numbers, those of {model['id']} "
            f"{model['dimensions']}",
            FAILED,
        )
    try:
        vector: NDArray[np.float32] = client.embed(query, model=model["id"], dimensions=length)[0]
    except (OSError, ValueError) as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        fail(f"cannot read {query}: {error}", USAGE)
    return vector
