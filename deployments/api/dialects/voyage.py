"""Voyage's multimodal embeddings: docs.voyageai.com/reference/multimodal-embeddings-api.

Its texts come to `/v1/embeddings`, and its rerank is in `rerank`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.dialects.contents import (
    DetailError,
    OutputDtype,
    check_output_dimension,
    detail_error,
    encoding_of,
    item_of,
    keys_of,
)
from deployments.api.endpoint import Dialect, post
from deployments.api.render import written
from deployments.api.schema import Body, WholeNumber
from deployments.errors import InvalidItem
from deployments.items import Item, parse_item
from deployments.service.job import Options
from deployments.service.vectors import as_matrix


class VoyageBody(Body):
    inputs: list[Any] = Field(
        min_length=1, description='`{"content": [part]}`, with one part each.'
    )
    input_type: Literal["query", "document"] | None = Field(None, description="Has no effect.")
    truncation: bool = True
    output_dtype: OutputDtype = "float"
    output_dimension: WholeNumber | None = Field(None, ge=1)
    encoding_format: Literal["base64"] | None = Field(
        None, description="The bytes of `output_dtype` instead of numbers."
    )


class VoyageRow(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class VoyageUsage(TypedDict):
    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class VoyageEmbeddings(TypedDict):
    object: Literal["list"]
    data: list[VoyageRow]
    model: str
    usage: VoyageUsage


async def multimodal_embeddings(call: Call) -> Response:
    body = await call.body(VoyageBody)
    group = call.items("inputs", body.inputs, _item)
    check_output_dimension(call, body.model, body.output_dimension)
    options = Options(dimensions=body.output_dimension, truncate=body.truncation)
    embedded = await call.embed([group], body.model, options)
    encoding = encoding_of(body.output_dtype, is_base64=body.encoding_format == "base64")
    return call.answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": row}
                for index, row in enumerate(written(as_matrix(embedded.rows), encoding))
            ],
            "model": embedded.card.id,
            "usage": {
                "text_tokens": embedded.tokens,
                "image_pixels": sum(
                    facts.width * facts.height for facts in embedded.images if facts is not None
                ),
                "video_pixels": 0,
                "total_tokens": embedded.tokens,
            },
        }
    )


def _item(content: Any) -> Item:
    return item_of(content, _part)


def _part(part: Any) -> Item:
    if isinstance(part, Mapping) and part.get("image_base64") is not None:
        kind = part.get("type")
        if keys_of(part) != ["image_base64"] or kind not in (None, "image_base64"):
            raise InvalidItem("image_base64 stands alone in its part, of type image_base64.")
        return parse_item({"base64": part["image_base64"]})
    return parse_item(part)


DIALECT = Dialect(
    "voyage",
    error=detail_error,
    error_answer=DetailError,
    endpoints=(
        post(
            "/v1/multimodalembeddings",
            multimodal_embeddings,
            "Embed texts or images",
            VoyageEmbeddings,
            VoyageBody,
        ),
    ),
)
