"""Text Embeddings Inference's API, as huggingface_hub's InferenceClient speaks it. Its schema:
huggingface.github.io/text-embeddings-inference.
"""

from importlib.metadata import version
from typing import Any, Literal, Self

from pydantic import model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.dialects.contents import message_of
from deployments.api.endpoint import Dialect, get, post, probe
from deployments.api.schema import Body, OneOrMore, WholeNumber
from deployments.errors import BadRequest, RaylensError
from deployments.service.job import Options
from deployments.service.vectors import as_matrix

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
# By status. `Tokenizer` is for what cannot be read: here, images.
ERROR_TYPES: dict[int, ErrorType] = {
    422: "Tokenizer",
    429: "Overloaded",
    500: "Backend",
    502: "Backend",
    503: "Unhealthy",
    504: "Backend",
}


class EmptyBatch(BadRequest):
    """An empty list of inputs, which has an error type of its own."""


class TeiBody(Body):
    truncate: bool = False
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"

    @model_validator(mode="after")
    def _texts_lose_their_end(self) -> Self:
        if self.truncate and self.truncation_direction.lower() == "left":
            raise ValueError(
                'truncation_direction must be "Right"; texts are truncated at their end only'
            )
        return self


class TeiEmbedBody(TeiBody):
    inputs: OneOrMore
    normalize: bool = True
    dimensions: WholeNumber | None = None


class TeiPooling(TypedDict):
    pooling: str


class TeiModelType(TypedDict):
    embedding: TeiPooling


class TeiInfo(TypedDict):
    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class TeiError(TypedDict):
    error: str
    error_type: ErrorType


async def embed(call: Call) -> Response:
    body = await call.body(TeiEmbedBody)
    check_not_empty("inputs", body.inputs)
    options = Options(body.dimensions, body.normalize, body.truncate)
    embedded = await call.embed([call.items("inputs", body.inputs)], body.model, options)
    return call.answer(as_matrix(embedded.rows))


def check_not_empty(param: str, items: Any) -> None:
    """Raises EmptyBatch."""
    if items == []:
        raise EmptyBatch(f"{param} is empty; send at least one item.", param=param)


async def info(call: Call) -> Response:
    """Describes the model that serves requests that name none."""
    card = call.service.model(None).card
    settings, limits = call.service.settings.model, call.limits
    max_tokens = card.text.max_tokens if card.text is not None else 0
    found: TeiInfo = {
        "model_id": card.id,
        "model_sha": card.revision,
        "model_dtype": card.precision,
        "served_model_name": card.id,
        "model_type": {"embedding": {"pooling": settings.pooling}},
        "max_concurrent_requests": limits.max_queued_items,
        "max_input_length": max_tokens,
        "max_batch_tokens": max_tokens * settings.max_batch_size,
        "max_batch_requests": settings.max_batch_size,
        "max_client_batch_size": limits.max_items,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": version("raylens"),
        "sha": None,
        "docker_label": None,
    }
    return call.answer(found)


async def health(call: Call) -> Response:
    await call.service.ready()
    return Response()


def error_body(error: RaylensError, request_id: str) -> TeiError:
    empty = isinstance(error, EmptyBatch)
    kind = "Empty" if empty else ERROR_TYPES.get(error.status, "Validation")
    return {"error": message_of(error), "error_type": kind}


DIALECT = Dialect(
    "tei",
    error=error_body,
    error_answer=TeiError,
    statuses={500: 424},
    endpoints=(
        *(
            # At the root too, where InferenceClient(model=URL) posts to.
            post(path, embed, "Embed texts or images", list[list[float]], TeiEmbedBody)
            for path in ("/embed", "/")
        ),
        get("/info", info, "The first model and its limits", TeiInfo),
        probe("/health", health, "Is the model ready?"),
    ),
)
