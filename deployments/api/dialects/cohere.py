"""Cohere's API, as its SDK speaks it. Its documentation: docs.cohere.com/reference/embed."""

from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.dialects.contents import Truncate, item_of, truncates, typed
from deployments.api.endpoint import Dialect, Endpoint
from deployments.api.fence import request_id
from deployments.api.schema import Body, WholeNumber
from deployments.errors import BadRequest, RaylensError
from deployments.items import TextItem
from deployments.service.job import ItemGroup, Options
from deployments.service.vectors import as_matrix

InputType = Literal["search_document", "search_query", "classification", "clustering", "image"]
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereEmbedBody(Body):
    input_type: InputType | None = None
    texts: list[str] | None = None
    images: list[Any] | None = None
    inputs: list[Any] | None = None
    embedding_types: list[EmbeddingType] = Field(["float"])
    output_dimension: WholeNumber | None = Field(None, ge=1)
    truncate: Truncate = "END"


class CohereError(TypedDict):
    message: str
    detail: str


async def embed(call: Call) -> Response:
    body = await call.body(CohereEmbedBody)
    group = _group(call, body)
    options = Options(dimensions=body.output_dimension, truncate=truncates(body.truncate))
    embedded = await call.embed([group], body.model, options)
    vectors = as_matrix(embedded.rows)
    return call.answer(
        {
            "id": request_id(call.request),
            "response_type": "embeddings_by_type",
            "embeddings": {kind: typed(vectors, kind) for kind in body.embedding_types},
        }
    )


def _group(call: Call, body: CohereEmbedBody) -> ItemGroup:
    """Raises BadRequest unless there is exactly one kind of input."""
    given = [n for n in ("texts", "images", "inputs") if getattr(body, n) is not None]
    if len(given) != 1:
        raise BadRequest("Send exactly one of texts, images and inputs.")
    if body.texts is not None:
        return call.each("texts", body.texts, TextItem)
    if body.images is not None:
        return call.items("images", body.images, "image")
    return call.each("inputs", body.inputs or [], item_of)


def error_body(error: RaylensError, request_id: str) -> CohereError:
    return {"message": error.message, "detail": error.message}


DIALECT = Dialect(
    "cohere",
    error=error_body,
    error_answer=CohereError,
    endpoints=(
        Endpoint(
            "POST", "/v2/embed", embed, "Embed texts or images", dict[str, Any], CohereEmbedBody
        ),
    ),
)
