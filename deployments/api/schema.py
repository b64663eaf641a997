"""Request bodies: what each endpoint takes, checked. Items inside are left to `items.py`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from deployments.errors import BadRequest

EncodingFormat = Literal["float", "base64"]
Dtype = Literal["float32", "float16", "int8", "ubinary"]

# Stands for the item's own schema until `openapi.py` puts a reference in its place; pydantic
# follows references itself and knows no such definition.
ITEM_PLACEHOLDER: dict[str, Any] = {"x-item": True}

NULL = {"type": "null"}

_ITEM = ITEM_PLACEHOLDER
_ITEMS: dict[str, Any] = {"type": "array", "items": _ITEM, "minItems": 1}

# Items may be of any type here, because a wrong one is an error of that item alone.
OneItem = Annotated[Any, WithJsonSchema(_ITEM)]
Items = Annotated[list[Any], Field(min_length=1), WithJsonSchema(_ITEMS)]
OneOrMore = Annotated[Any, WithJsonSchema({"anyOf": [_ITEM, _ITEMS]})]


def _nullable(schema: dict[str, Any]) -> None:
    for name, option in schema["properties"].items():
        if name not in schema.get("required", ()) and NULL not in option.get("anyOf", ()):
            told = ("default", "description", "title")
            kind = {key: option.pop(key) for key in [*option] if key not in told}
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
        # Only what is known, because pydantic would go through a million others as well.
        return {name: data[name] for name in cls.model_fields if data.get(name) is not None}


class EmbeddingOptions(Body):
    """How `/v1/embeddings` answers: in the JSON body, form fields or the query string."""

    encoding_format: EncodingFormat = Field(
        "float", description="JSON numbers, or base64 of the little-endian array."
    )
    dtype: Dtype = Field(
        "float32", description="int8 is round(127·x); ubinary packs the signs, 8 to a byte."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Shorten the vectors; for Matryoshka models only."
    )
    normalize: bool = Field(True, description="Scale each vector to length 1.")
    modality: Literal["image", "text"] | None = Field(
        None, description="Read bare strings as images or as text."
    )
    truncate: bool = Field(True, description="Cut texts that are longer than the model reads.")
    on_error: Literal["fail", "report"] = Field(
        "fail", description="Fail the request over a bad item, or report the error in its place."
    )

    @model_validator(mode="after")
    def _int8_is_normalised(self) -> Self:
        if self.dtype == "int8" and not self.normalize:
            raise ValueError(
                "normalize must be true with int8, which is of the normalised vector only"
            )
        return self


class EmbeddingsBody(EmbeddingOptions):
    input: OneOrMore


class SimilarityBody(Body):
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


class RankBody(Body):
    query: OneItem
    documents: Items
    top_n: int | None = Field(None, ge=1, description="Return only the best so many.")


class ClassifyBody(Body):
    input: OneOrMore
    labels: list[str] = Field(min_length=1)
    template: str = Field("a photo of a {}.", description="{} stands for the label.")

    @model_validator(mode="after")
    def _template_has_a_place(self) -> Self:
        if "{}" not in self.template:
            raise ValueError("template must have {} where the label goes")
        return self


B = TypeVar("B", bound=Body)


# Our own sentences for pydantic's kinds of errors, with what it knows of each.
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
            sentence = str(first["ctx"]["error"])  # of ours, and the key is its first word
            raise BadRequest(f"{sentence}.", param=sentence.split()[0]) from None
        key = "".join(f"[{p}]" if isinstance(p, int) else str(p) for p in first["loc"])
        sentence = SENTENCES.get(first["type"], "has a value that it may not have")
        message = f"{key} {sentence.format(**first.get('ctx', {}))}."
        raise BadRequest(message, param=key) from None
