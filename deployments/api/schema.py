"""Validates request bodies: what each endpoint takes. The items inside are left to `items.py`."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from deployments.errors import BadRequest
from deployments.service.job import Options

EncodingFormat = Literal["float", "base64"]
Dtype = Literal["float32", "float16", "int8", "ubinary"]
VectorType = Dtype | Literal["uint8", "binary"]  # which other services' clients ask for too


class Encoding(NamedTuple):
    """How an answer writes vectors."""

    dtype: VectorType
    is_base64: bool
    """Whether as base64 of the little-endian array, or as JSON numbers."""


FLOAT16_MAX = float(np.finfo(np.float16).max)

# Stands for the item's schema until `openapi.py` replaces it by a reference, which pydantic would
# try to resolve itself.
ITEM_PLACEHOLDER: dict[str, Any] = {"x-item": True}

NULL = {"type": "null"}

T = TypeVar("T")
# Ends at the first wrong element. pydantic would collect an error for each: for a million of them,
# that is gigabytes, and seconds in which all other requests wait.
ListOf = Annotated[list[T], Field(fail_fast=True)]

_ITEM = ITEM_PLACEHOLDER
_ITEMS: dict[str, Any] = {"type": "array", "items": _ITEM, "minItems": 1}

# Items may be of any type here, because a bad one is an error of that item only.
OneItem = Annotated[Any, WithJsonSchema(_ITEM)]
Items = Annotated[list[Any], Field(min_length=1), WithJsonSchema(_ITEMS)]
OneOrMore = Annotated[Any, WithJsonSchema({"anyOf": [_ITEM, _ITEMS]})]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# 512.0 is one too: some languages write all numbers so.
WholeNumber = Annotated[int, BeforeValidator(_whole)]


def _truncation(value: Any) -> Any:
    if value == "START":
        raise ValueError('truncate must be "END" or "NONE"; texts are truncated at their end only')
    return {"END": True, "NONE": False}.get(value, value) if isinstance(value, str) else value


_TRUNCATION = {"anyOf": [{"type": "boolean"}, {"enum": ["END", "NONE"]}]}
# NVIDIA NIM writes words.
Truncation = Annotated[bool, BeforeValidator(_truncation), WithJsonSchema(_TRUNCATION)]


def _nullable(schema: dict[str, Any]) -> None:
    for name, option in schema["properties"].items():
        if name not in schema.get("required", ()) and NULL not in option.get("anyOf", ()):
            kept = ("default", "description", "title")
            kind = {key: option.pop(key) for key in [*option] if key not in kept}
            option["anyOf"] = [kind, NULL]


class Body(BaseModel):
    """Unknown keys are ignored, as OpenAI does; null means the default."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_nullable)

    model: str | None = Field(None, description="The served model's id or one of its aliases.")

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # Only known keys, because pydantic would go through a million unknown ones as well.
        return {name: data[name] for name in cls.model_fields if data.get(name) is not None}


def one_of(*names: str) -> ConfigDict:
    """The configuration of a Body with just one of these keys, for its schema."""

    def schema(schema: dict[str, Any]) -> None:
        _nullable(schema)
        schema["oneOf"] = [{"required": [name]} for name in names]

    return ConfigDict(json_schema_extra=schema)


class TextsBody(Body):
    """A body that may hold texts."""

    truncate: Truncation = Field(
        True, description="Truncate texts that are longer than the model reads, or refuse them."
    )


class EmbeddingOptions(TextsBody):
    """How `/v1/embeddings` answers: in the JSON body, form fields or the query string."""

    encoding_format: EncodingFormat = Field(
        "float", description="JSON numbers, or base64 of the little-endian array."
    )
    dtype: Dtype = Field(
        "float32", description="int8 is round(127·x); ubinary packs the signs, 8 to a byte."
    )
    dimensions: WholeNumber | None = Field(
        None, ge=1, description="Truncate the vectors; for Matryoshka models only."
    )
    normalize: bool = Field(True, description="Scale each vector to length 1.")
    modality: Literal["image", "text"] | None = Field(
        None, description="Read bare strings as images or as text."
    )
    on_error: Literal["fail", "report"] = Field(
        "fail", description="Fail the request over a bad item, or report the error in its place."
    )

    @model_validator(mode="after")
    def _int8_is_normalised(self) -> Self:
        if self.dtype == "int8" and not self.normalize:
            raise ValueError(
                "normalize must be true with int8, which encodes normalised vectors only"
            )
        return self

    def options(self) -> Options:
        largest = FLOAT16_MAX if self.dtype == "float16" else math.inf
        return Options(
            self.dimensions,
            self.normalize,
            self.truncate,
            self.on_error,
            largest,
            several=True,
        )

    def encoding(self) -> Encoding | dict[str, Encoding]:
        """Of each vector, or by type if several were asked for."""
        return Encoding(self.dtype, self.encoding_format == "base64")


class SimilarityBody(TextsBody):
    a: Items
    b: Items
    mode: Literal["pairwise", "matrix"] = "pairwise"

    @model_validator(mode="after")
    def _pairs_match(self) -> Self:
        if self.mode == "pairwise" and len(self.a) != len(self.b):
            raise ValueError(
                f"b has {len(self.b)} items and a has {len(self.a)}, which cannot be paired; "
                'send as many, or use "mode": "matrix" to compare all with all'
            )
        return self


class RankBody(TextsBody):
    query: OneItem
    documents: Items
    top_n: WholeNumber | None = Field(None, ge=1, description="Return only this many, the best.")
    score: Literal["cosine", "maxsim"] | None = Field(
        None,
        description="The model's own, which is maxsim for late interaction: of each vector of the "
        "query, the largest cosine with one of the document's, summed. The other is refused.",
    )


class ClassifyBody(TextsBody):
    input: OneOrMore
    labels: ListOf[str] = Field(min_length=1)
    template: str = Field("a photo of a {}.", description="{} stands for the label.")

    @model_validator(mode="after")
    def _template_has_a_place(self) -> Self:
        if "{}" not in self.template:
            raise ValueError("template must have {} where the label goes")
        return self


B = TypeVar("B", bound=Body)


# Our own sentences for pydantic's types of errors, filled in from the error's context.
SENTENCES = {
    "missing": "is missing",
    "too_short": "is empty; send at least one item",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
}


def parse(model: type[B], data: Mapping[str, Any], *, strict: bool = True) -> B:
    """`data` as a `model`; strict for JSON, lax for form fields, which are all strings.

    Raises BadRequest, which names the first wrong key.
    """
    try:
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "value_error":
            sentence = str(first["ctx"]["error"])  # our own, whose first word is the key
            raise BadRequest(f"{sentence}.", param=sentence.split()[0]) from None
        key = _key(first["loc"], data)
        sentence = SENTENCES.get(first["type"], "has an invalid value")
        message = f"{key} {sentence.format(**first.get('ctx', {}))}."
        raise BadRequest(message, param=key) from None


def _key(loc: Sequence[int | str], data: Any) -> str:
    """`inputs[0].shape`. Besides keys and indices, pydantic's `loc` has the members of unions."""
    key = ""
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
            data = data[part] if isinstance(data, list) else None
        elif isinstance(data, Mapping):
            key += f".{part}"
            data = data.get(part)
    return key[1:]


def without_empty(options: dict[str, str]) -> dict[str, str]:
    """Without those that a form was sent with and nobody filled in."""
    stripped = {name: value.strip() for name, value in options.items()}
    return {name: value for name, value in stripped.items() if value}
