"""The body of `/v1/embeddings`, with what services that copied OpenAI's API have added to it: Jina,
Voyage (for texts), NVIDIA NIM, vLLM and infinity.

Their names for options that raylens has, too, are honoured: to ignore one would give silently wrong
numbers. What has no effect on these models (`task`, `input_type`) is ignored.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deployments.api.call import Call
from deployments.api.dialects.contents import (
    VECTOR_TYPES,
    OutputDtype,
    check_output_dimension,
    check_text_limit,
    encoding_of,
    item_of,
)
from deployments.api.schema import (
    EmbeddingOptions,
    Encoding,
    ListOf,
    OneOrMore,
    WholeNumber,
    one_of,
)
from deployments.errors import BadRequest
from deployments.items import parse_item
from deployments.service.job import ItemGroup

EmbeddingType = Literal["float", "base64", "binary", "ubinary"]
EmbeddingTypes = Annotated[ListOf[EmbeddingType], Field(min_length=1)]

# Others' names of options, and raylens's own.
SYNONYMS = {
    "output_dimension": "dimensions",
    "normalized": "normalize",
    "use_activation": "normalize",
    "truncation": "truncate",
}
# What the numbers are; if several are sent, they must mean the same.
TYPES = ("dtype", "output_dtype", "embedding_type", "embed_dtype")


class EmbeddingsBody(EmbeddingOptions):
    model_config = one_of("input", "messages")

    input: OneOrMore = None
    messages: list[Any] | None = Field(
        None, description="vLLM: in place of input, one message of one part."
    )
    output_dtype: OutputDtype | None = Field(
        None, description="Voyage: dtype. uint8 is int8 + 128; binary is ubinary - 128."
    )
    embedding_type: EmbeddingType | EmbeddingTypes | None = Field(
        None,
        description="Jina: dtype; base64 is of float32. With a list, embedding is an object with "
        "a value for each.",
    )
    output_dimension: WholeNumber | None = Field(None, ge=1, description="Voyage: dimensions.")
    normalized: bool | None = Field(None, description="Jina: normalize.")
    truncation: bool | None = Field(None, description="Voyage: truncate.")
    use_activation: bool | None = Field(None, description="vLLM: normalize.")
    embed_dtype: Literal["float32", "float16"] | None = Field(None, description="vLLM: dtype.")
    endianness: Literal["native", "little"] = Field(
        "native", description="vLLM: of base64, which is little-endian in any case."
    )
    truncate_prompt_tokens: WholeNumber | None = Field(
        None,
        ge=-1,
        description="vLLM: no effect, and refused if less than what the model reads; -1 is that.",
    )
    truncation_side: Literal["right"] = Field("right", description="vLLM: texts lose their end.")
    return_multivector: bool = Field(False, description="Jina: must be false.")

    @model_validator(mode="after")
    def _others_words_are_understood(self) -> Self:
        given = self.model_fields_set
        if (self.input is None) == (self.messages is None):
            raise ValueError(
                "input is missing" if self.input is None else "messages replaces input; send one"
            )
        if given.isdisjoint(OTHERS_WORDS):
            return self
        if self.return_multivector:
            raise ValueError(
                "return_multivector must be false; the model alone says how many vectors items have"
            )
        for theirs, ours in SYNONYMS.items():
            value = getattr(self, theirs)
            if value is not None:
                if ours in given and getattr(self, ours) != value:
                    raise ValueError(f"{theirs} and {ours} differ; send one of them")
                setattr(self, ours, value)
        types = [(name, _meant(getattr(self, name))) for name in TYPES if name in given]
        for name, meant in types:
            if meant != types[0][1]:
                raise ValueError(f"{name} and {types[0][0]} differ; send one of them")
        self.dtype = self.embed_dtype or self.dtype
        if not self.normalize and {self.dtype, self.output_dtype} & {"int8", "uint8"}:
            raise ValueError(
                "normalize must be true with int8 and uint8, which encode normalised vectors only"
            )
        return self

    def encoding(self) -> Encoding | dict[str, Encoding]:
        kind = self.embedding_type or self.output_dtype
        if kind is None:
            return super().encoding()
        is_base64 = self.encoding_format == "base64"
        if isinstance(kind, list):
            return {name: encoding_of(name, is_base64=is_base64) for name in kind}
        return encoding_of(kind, is_base64=is_base64)

    def group(self, call: Call) -> ItemGroup:
        """Its items. Raises BadRequest, ModelNotFound or TooManyItems."""
        check_text_limit(call, self.model, "truncate_prompt_tokens", self.truncate_prompt_tokens)
        check_output_dimension(call, self.model, self.output_dimension)
        read = partial(parse_item, modality=self.modality)
        if self.messages is None:
            return call.items("input", self.input, read)
        if len(self.messages) > 1:
            raise BadRequest(
                "messages must be one message, which is embedded as one item.", param="messages"
            )
        return call.items("messages", self.messages, partial(item_of, read=read))


def _meant(kind: str | list[str]) -> str | list[str]:
    """Others' word for a type of vector as raylens's own."""
    return {**VECTOR_TYPES, "base64": "float32"}.get(kind, kind) if isinstance(kind, str) else kind


OTHERS_WORDS = EmbeddingsBody.model_fields.keys() - EmbeddingOptions.model_fields.keys() - {"input"}


def words_for(option: str) -> set[str]:
    """raylens's own and others' names of an option in a JSON body."""
    others = {theirs for theirs, ours in SYNONYMS.items() if ours == option}
    return {option, *others, *(TYPES if option == "dtype" else ())}


def refuse_others_words(options: Mapping[str, Any]) -> None:
    """Raises BadRequest if a query string or form has one of others' words, which only JSON bodies
    may have.
    """
    for name in options:
        if name in OTHERS_WORDS:
            ours = "dtype" if name in TYPES else SYNONYMS.get(name)
            advice = f"; send {ours} instead" if ours else ""
            raise BadRequest(f"{name} is read from JSON bodies only{advice}.", param=name)
