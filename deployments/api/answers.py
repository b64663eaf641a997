"""What each endpoint answers, declared once; /openapi.json is generated from it.

`render` serialises answers; a test checks real ones against these declarations.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict  # before Python 3.12, pydantic cannot read typing's

from deployments import errors
from deployments.settings import PUBLIC_LIMITS


def _codes() -> dict[int, set[str]]:
    codes: dict[int, set[str]] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.RaylensError):
            codes.setdefault(value.status, set()).add(value.code)
    return codes


CODES = _codes()
"""Error codes by HTTP status."""


def error_type(status: int) -> str:
    """The `type` of an error, as OpenAI's clients know it."""
    if status >= 500:
        return "api_error"
    return {401: "authentication_error", 429: "overloaded_error"}.get(
        status, "invalid_request_error"
    )


def _one_of(values: set[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": sorted(values)})


Code = Annotated[str, _one_of(set().union(*CODES.values()))]
ErrorType = Annotated[str, _one_of({error_type(status) for status in CODES})]
_LIMIT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "integer"} for name in PUBLIC_LIMITS},
    "required": list(PUBLIC_LIMITS),
}
PublicLimits = Annotated[dict[str, int], WithJsonSchema(_LIMIT_SCHEMA)]


class EmbeddingByType(TypedDict):
    float: NotRequired[list[float] | str]
    base64: NotRequired[str]
    binary: NotRequired[list[int] | str]
    ubinary: NotRequired[list[int] | str]


class EmbeddingsByType(TypedDict):
    float: NotRequired[list[list[float]] | str]
    base64: NotRequired[str]
    binary: NotRequired[list[list[int]] | str]
    ubinary: NotRequired[list[list[int]] | str]


class EmbeddingRow(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Annotated[
        list[float] | str | EmbeddingByType,
        Field(
            description="Numbers, base64 under encoding_format=base64, or both by type if "
            "embedding_type is a list."
        ),
    ]
    truncated: NotRequired[
        Annotated[
            Literal[True],
            Field(description="Present only if the text is longer than the model reads."),
        ]
    ]


class MultiEmbeddingRow(TypedDict):
    """Of a model that gives several vectors for each item."""

    object: Literal["multi_embedding"]
    index: int
    embedding: Annotated[
        list[list[float]] | str | EmbeddingsByType,
        Field(
            description="A list of vectors, base64 of their array under encoding_format=base64, or "
            "both by type if embedding_type is a list."
        ),
    ]
    shape: Annotated[
        list[int],
        Field(description="How many vectors, and how many numbers each has before bits are packed"),
    ]
    truncated: NotRequired[
        Annotated[
            Literal[True],
            Field(description="Present only if the text is longer than the model reads."),
        ]
    ]


class RowError(TypedDict):
    code: Code
    message: str


class FailedRow(TypedDict):
    object: Literal["error"]
    index: int
    embedding: None
    error: RowError


class Usage(TypedDict):
    prompt_tokens: int
    total_tokens: int
    images: int
    texts: int
    cached: int


class Embeddings(TypedDict):
    object: Literal["list"]
    model: str
    data: list[EmbeddingRow | MultiEmbeddingRow | FailedRow]
    usage: Usage


class Similarity(TypedDict):
    scores: list[float] | list[list[float]]


class RankResult(TypedDict):
    index: int
    score: float


class Rank(TypedDict):
    object: Literal["list"]
    model: str
    results: list[RankResult]


class LabelProbability(TypedDict):
    label: str
    probability: float


class ClassifiedRow(TypedDict):
    index: int
    labels: Annotated[list[LabelProbability], Field(description="The most likely label first.")]


class Classification(TypedDict):
    object: Literal["list"]
    model: str
    data: list[ClassifiedRow]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    dimensions: int
    vectors_per_image: Annotated[
        int, Field(description="More than 1 if the model gives several, each of `dimensions`.")
    ]
    grid: Annotated[
        list[int] | None,
        Field(description="[rows, columns] if these are of an image's patches, row by row."),
    ]
    score: Annotated[
        Literal["cosine", "maxsim"] | None,
        Field(description="How items are compared; null if their vectors are for no comparison."),
    ]
    image_size: Annotated[
        int | list[int],
        Field(description="Pixels; [height, width] if unequal; of a square image for NaFlex."),
    ]
    max_text_tokens: int | None
    modalities: list[str]
    precision: str
    precision_reason: str
    engine: str
    engine_reason: str
    device: str
    device_reason: str
    revision: str | None
    matryoshka: bool
    max_items: int
    limits: PublicLimits


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]
    limits: PublicLimits


class Alive(TypedDict):
    status: Literal["ok"]


class Ready(TypedDict):
    status: Literal["ready"]
    model: str


class ItemError(TypedDict):
    index: int
    param: str
    code: Code
    message: str


class ErrorDetails(TypedDict):
    message: str
    type: ErrorType
    param: str | None
    code: Code
    request_id: str
    items: NotRequired[list[ItemError]]


class Error(TypedDict):
    error: ErrorDetails
    detail: Annotated[str, Field(description="The message, for clients of other services.")]
    message: Annotated[str, Field(description="The same.")]
