"""Weaviate's module multi2vec-clip, as it calls its inference container.

Its source: github.com/weaviate/weaviate, modules/multi2vec-clip/clients.
"""

from typing import Any

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api import answers
from deployments.api.call import Call
from deployments.api.endpoint import OTHER_STATUSES, Dialect, Endpoint
from deployments.api.listing import model_entry
from deployments.api.schema import Body
from deployments.errors import RaylensError
from deployments.items import Item, TextItem, parse_item
from deployments.service.stacks import all_or_none
from deployments.service.vectors import as_matrix

# Weaviate waits half a second, and asks again after a second.
READY_S = 0.4


class VectorizeBody(Body):
    texts: list[str] = Field([])
    images: list[str] = Field([], description="Each in base64.")


class Vectorized(TypedDict):
    textVectors: list[list[float]]
    imageVectors: list[list[float]]


class WeaviateError(TypedDict):
    error: str


async def vectorize(call: Call) -> Response:
    body = await call.body(VectorizeBody)
    groups = []
    if body.texts:
        groups.append(call.each("texts", body.texts, TextItem))
    if body.images:
        groups.append(call.each("images", body.images, _image))
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
    await all_or_none([model.ready(READY_S) for model in call.service.models])
    return Response(status_code=204)


def error_body(error: RaylensError, request_id: str) -> WeaviateError:
    return {"error": error.message}


DIALECT = Dialect(
    "weaviate",
    error=error_body,
    error_answer=WeaviateError,
    endpoints=(
        Endpoint(
            "POST", "/vectorize", vectorize, "Embed texts and images", Vectorized, VectorizeBody
        ),
        Endpoint("GET", "/meta", meta, "The first model", answers.Model, statuses=OTHER_STATUSES),
        Endpoint(
            *("GET", "/.well-known/live", live, "Is the process up?", None),
            success=204,
            statuses=(500, 504),
            is_open=True,
        ),
        Endpoint(
            *("GET", "/.well-known/ready", ready, "Is the model ready?", None),
            success=204,
            statuses=(500, 503, 504),
            is_open=True,
        ),
    ),
)
