"""Cohere's embeddings, as versions 1 and 2 of its API have them: docs.cohere.com/reference/embed.

Its rerank, which others have too, is in `rerank`.
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.dialects.contents import (
    Truncate,
    check_output_dimension,
    check_text_limit,
    encoding_of,
    item_of,
    message_of,
    truncates,
)
from deployments.api.endpoint import Dialect, post
from deployments.api.fence import request_id
from deployments.api.render import written
from deployments.api.schema import Body, ListOf, WholeNumber
from deployments.errors import BadRequest, RaylensError
from deployments.items import TextItem, parse_item
from deployments.service.embedding import Embedded
from deployments.service.job import ItemGroup, Options
from deployments.service.vectors import as_matrix

InputType = Literal["search_document", "search_query", "classification", "clustering", "image"]
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
Version = Literal["1", "2"]


class CohereEmbedBody(Body):
    input_type: InputType | None = Field(None, description="Has no effect.")
    texts: ListOf[str] | None = None
    images: ListOf[str] | None = None
    inputs: list[Any] | None = Field(None, description='`{"content": [part]}`, with one part each.')
    embedding_types: ListOf[EmbeddingType] = Field([])
    output_dimension: WholeNumber | None = Field(None, ge=1)
    max_tokens: WholeNumber | None = Field(None, ge=1)
    truncate: Truncate = "END"


class CohereVersion(TypedDict):
    version: Version


class CohereUnits(TypedDict):
    images: int
    input_tokens: int


class CohereMeta(TypedDict):
    api_version: CohereVersion
    billed_units: CohereUnits
    warnings: list[str]


class CohereVectors(TypedDict, total=False):
    float: list[list[float]]
    int8: list[list[int]]
    uint8: list[list[int]]
    binary: list[list[int]]
    ubinary: list[list[int]]
    base64: list[str]


class CohereImage(TypedDict):
    width: int
    height: int
    format: Annotated[str, Field(description="`jpeg`, `png`, …")]
    bit_depth: Annotated[int, Field(description="Bits of each channel.")]


class CohereEmbeddings(TypedDict):
    id: str
    texts: list[str]
    images: list[CohereImage]
    meta: CohereMeta


class CohereByType(CohereEmbeddings):
    response_type: Literal["embeddings_by_type"]
    embeddings: CohereVectors


class CohereFloats(CohereEmbeddings):
    response_type: Literal["embeddings_floats"]
    embeddings: list[list[float]]


class CohereError(TypedDict):
    message: str
    detail: str


async def embed_v1(call: Call) -> Response:
    body = await call.body(CohereEmbedBody)
    return await _embed(call, body, "1")


async def embed_v2(call: Call) -> Response:
    body = await call.body(CohereEmbedBody)
    body.embedding_types = body.embedding_types or ["float"]
    return await _embed(call, body, "2")


async def _embed(call: Call, body: CohereEmbedBody, version: Version) -> Response:
    group = _group(call, body)
    check_text_limit(call, body.model, "max_tokens", body.max_tokens)
    check_output_dimension(call, body.model, body.output_dimension)
    options = Options(dimensions=body.output_dimension, truncate=truncates(body.truncate))
    embedded = await call.embed([group], body.model, options)
    vectors = as_matrix(embedded.rows)
    kinds = dict.fromkeys(body.embedding_types)  # each once, however often it is asked for
    by_type = {kind: written(vectors, encoding_of(kind)) for kind in kinds}
    return call.answer(
        {
            "id": request_id(call.request),
            "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
            "embeddings": by_type or vectors,
            "texts": [item.text for item in group.items if isinstance(item, TextItem)],
            "images": [
                facts._asdict() | {"format": facts.format.lower()}
                for facts in embedded.images
                if facts is not None
            ],
            "meta": _meta(embedded, group, version),
        }
    )


def _group(call: Call, body: CohereEmbedBody) -> ItemGroup:
    """Raises BadRequest unless there is exactly one kind of input."""
    given = [n for n in ("texts", "images", "inputs") if getattr(body, n) is not None]
    if len(given) != 1:
        raise BadRequest("Send exactly one of texts, images and inputs.")
    if body.texts is not None:
        return call.items("texts", body.texts, TextItem)
    if body.images is not None:
        return call.items("images", body.images, partial(parse_item, modality="image"))
    return call.items("inputs", body.inputs or [], item_of)


def _meta(embedded: Embedded, group: ItemGroup, version: Version) -> CohereMeta:
    images = len(embedded.rows) - embedded.texts
    truncated = ", ".join(group.param(index) for index in sorted(embedded.truncated))
    return {
        "api_version": {"version": version},
        "billed_units": {"images": images, "input_tokens": embedded.tokens},
        "warnings": [f"Truncated to what the model reads: {truncated}."] if truncated else [],
    }


def error_body(error: RaylensError, request_id: str) -> CohereError:
    message = message_of(error)
    return {"message": message, "detail": message}


DIALECT = Dialect(
    "cohere",
    error=error_body,
    error_answer=CohereError,
    endpoints=(
        post(
            "/v1/embed",
            embed_v1,
            "Embed texts or images",
            CohereFloats | CohereByType,
            CohereEmbedBody,
        ),
        post("/v2/embed", embed_v2, "Embed texts or images", CohereByType, CohereEmbedBody),
    ),
)
