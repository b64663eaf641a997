"""Weaviate's module multi2vec-clip, as it calls its inference container.

Its source: github.com/weaviate/weaviate, modules/multi2vec-clip/clients.
"""

from typing import Any

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api import answers
from deployments.api.call import Call
from deployments.api.dialects.contents import StringError, string_error
from deployments.api.endpoint import Dialect, get, post, probe
from deployments.api.listing import model_entry
from deployments.api.schema import Body, ListOf
from deployments.items import Item, TextItem, parse_item
from deployments.service.vectors import as_matrix

# Weaviate waits half a second, and asks again after a second.
READY_S = 0.4


class VectorizeBody(Body):
    texts: ListOf[str] = Field([])
    images: ListOf[str] = Field([], description="Each in base64.")


class Vectorized(TypedDict):
    textVectors: list[list[float]]
    imageVectors: list[list[float]]


async def vectorize(call: Call) -> Response:
    body = await call.body(VectorizeBody)
    groups = []
    if body.texts:
        groups.append(call.items("texts", body.texts, TextItem))
    if body.images:
        groups.append(call.items("images", body.images, _image))
    if not groups:
        return call.answer({"textVectors": [], "imageVectors": []})
    vectors = as_matrix((await call.embed(groups, body.model)).rows)
    texts = len(body.texts)
    return call.answer({"textVectors": vectors[:texts], "imageVectors": vectors[texts:]})


def _image(text: Any) -> Item:
    return parse_item({"base64": text})


async def meta(call: Call) -> Response:
    return call.answer(model_entry(call.service.model(None).card, call.limits))


async def live(call: Call) -> Response:
    return Response(status_code=204)


async def ready(call: Call) -> Response:
    await call.service.ready(READY_S)
    return Response(status_code=204)


DIALECT = Dialect(
    "weaviate",
    error=string_error,
    error_answer=StringError,
    endpoints=(
        post("/vectorize", vectorize, "Embed texts and images", Vectorized, VectorizeBody),
        get("/meta", meta, "The first model", answers.Model),
        probe("/.well-known/live", live, "Is the process up?", success=204),
        probe("/.well-known/ready", ready, "Is the model ready?", success=204),
    ),
)
