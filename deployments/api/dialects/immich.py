"""Immich's machine learning, as its server calls it: images and texts for its search.

Its source: github.com/immich-app/immich, server/src/repositories/machine-learning.repository.ts.
Other tasks, such as faces and texts in photos, are forwarded to an Immich machine learning, or
refused.
"""

from typing import Annotated, Any, NotRequired

import aiohttp
import orjson
from pydantic import Field, WithJsonSchema
from starlette.responses import PlainTextResponse, Response
from typing_extensions import TypedDict

from deployments.api.bodies import media_type, read_form
from deployments.api.call import Call
from deployments.api.dialects.contents import DetailError, detail_error
from deployments.api.endpoint import Dialect, post, probe
from deployments.api.forwarding import posted
from deployments.api.render import Answer
from deployments.errors import BadRequest, ImageTooLarge, UnsupportedMediaType
from deployments.items import BytesItem, TextItem
from deployments.service.job import ItemGroup
from deployments.service.vectors import as_matrix

_FILE: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}


class BadEntries(BadRequest):
    """What Immich answers with 422."""

    status = 422


class PredictForm(TypedDict):
    entries: Annotated[str, Field(examples=['{"clip": {"visual": {"modelName": "…"}}}'])]
    image: NotRequired[Annotated[str, WithJsonSchema(_FILE)]]
    text: NotRequired[str]


class _PredictedText(TypedDict):
    clip: str
    """The vector, as JSON in a string."""


class Predicted(_PredictedText, total=False):
    imageHeight: int
    imageWidth: int


async def ping(call: Call) -> Response:
    return PlainTextResponse("pong")


async def predict(call: Call) -> Response:
    if media_type(call.request) != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data.")
    fields, files = await read_form(call.request, call.limits, file="image")
    tasks = _tasks(fields.get("entries"))
    if len(files) > 1:
        raise BadRequest("Send one image.", param="image")
    if not files and "text" not in fields:
        raise BadRequest("Send an image in a form field named image, or a text in one named text.")
    fallback = call.service.settings.api.immich_fallback
    if fallback is not None:
        if "clip" not in tasks:
            return await _forwarded(call, fallback, fields, files)
        if len(tasks) > 1:
            raise BadEntries("Ask for clip alone, and for other tasks without it.", param="entries")
    kind, model = _clip(tasks)
    if (kind == "visual") != bool(files):
        raise BadEntries("visual takes an image, and textual a text.", param="entries")
    name, item = ("image", BytesItem(files[0])) if files else ("text", TextItem(fields["text"]))
    embedded = await call.embed([ItemGroup(name, [item], is_list=False)], model)
    (vector,), (image,) = as_matrix(embedded.rows), embedded.images
    text = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    size = {"imageHeight": image.height, "imageWidth": image.width} if image else {}
    return call.answer({"clip": text, **size})


def _tasks(entries: str | None) -> dict[str, Any]:
    """What is to be done, by task. Raises BadEntries."""
    try:
        tasks = orjson.loads(entries or "")
    except orjson.JSONDecodeError:
        raise BadEntries("entries must be JSON.", param="entries") from None
    if not isinstance(tasks, dict) or not tasks:
        raise BadEntries('entries must name a task, such as {"clip": …}.', param="entries")
    return tasks


def _clip(tasks: dict[str, Any]) -> tuple[str, str]:
    """Whether the image or the text tower is asked for, and of which model. Raises BadEntries."""
    if [*tasks] != ["clip"]:
        raise BadEntries(
            "This service does clip alone; api.immich_fallback may name another for other tasks.",
            param="entries",
        )
    types = tasks["clip"]
    if isinstance(types, dict) and len(types) == 1:
        ((kind, entry),) = types.items()
        model = entry.get("modelName") if isinstance(entry, dict) else None
        if kind in ("visual", "textual") and isinstance(model, str):
            return kind, model
    raise BadEntries("clip must be visual or textual, with a modelName.", param="entries")


async def _forwarded(call: Call, url: str, fields: dict[str, str], files: list[bytes]) -> Response:
    """What the machine learning at `url` answers, which the operator has set for other tasks.

    Raises ImageTooLarge, Overloaded or RateLimited instead of asking it.
    """
    form = aiohttp.FormData({"entries": fields["entries"]}, default_to_multipart=True)
    if files:
        limit = call.limits.max_image_bytes
        if len(files[0]) > limit:
            raise ImageTooLarge(
                f"The image is larger than {limit} bytes; send a smaller one.", param="image"
            )
        form.add_field("image", files[0], filename="image")
    else:
        form.add_field("text", fields["text"])
    with call.forwarding():
        body = await posted(f"{url.rstrip('/')}/predict", form, call.deadline)
    return Answer(body, media_type="application/json")


DIALECT = Dialect(
    "immich",
    error=detail_error,
    error_answer=DetailError,
    endpoints=(
        probe("/ping", ping, "Is it up?"),
        post(
            "/predict",
            predict,
            "Embed an image or a text",
            Predicted,
            PredictForm,
            media="multipart/form-data",
        ),
    ),
)
