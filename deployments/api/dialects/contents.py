"""What several dialects have in common: items as lists of parts, truncation, types of vectors,
errors."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from deployments.api.call import Call
from deployments.api.schema import Encoding, VectorType
from deployments.errors import BadRequest, InvalidItem, RaylensError
from deployments.items import KEYS, Item, parse_item
from deployments.service.options import check_dimensions


class StringError(TypedDict):
    error: str


class DetailError(TypedDict):
    detail: str


Truncate = Literal["NONE", "START", "END"]
OutputDtype = Literal["float", "int8", "uint8", "binary", "ubinary"]
VECTOR_TYPES: dict[str, VectorType] = {
    "float": "float32",
    "int8": "int8",
    "uint8": "uint8",
    "binary": "binary",
    "ubinary": "ubinary",
}
"""What others call them."""


def item_of(content: Any, read: Callable[[Any], Item] = parse_item) -> Item:
    """The item that a message or a document is: a string, an item as raylens reads it, or an object
    with a `content` of one part.

    Raises InvalidItem for several parts, because the model has one vector for each of them, or if
    another image or text stands beside `content`; and whatever `read` raises.
    """
    if isinstance(content, Mapping) and content.get("content") is not None:
        if others := keys_of(content):
            raise InvalidItem(f"{others[0]} stands beside content; send one of them.")
        content = content["content"]
    if isinstance(content, list):
        if len(content) != 1:
            raise InvalidItem(
                "An item has exactly one part, an image or a text: the model has no vector for "
                "both together. Send each as an item of its own."
            )
        content = content[0]
    return read(content)


def keys_of(value: Mapping[str, Any]) -> list[str]:
    """The keys under which `value` has an image or a text, Voyage's included."""
    return [key for key in (*KEYS, "image_base64") if value.get(key) is not None]


def truncates(truncate: Truncate | bool) -> bool:
    """Whether to truncate a text that is too long. Raises BadRequest for `START`."""
    if truncate == "START":
        raise BadRequest(
            'Texts are truncated at their end only; set truncate to "END", or "NONE" to refuse '
            "long ones.",
            param="truncate",
        )
    return truncate not in (False, "NONE")


def check_text_limit(call: Call, model: str | None, param: str, tokens: int | None) -> None:
    """Raises BadRequest if texts should be truncated to fewer `tokens` than the model reads; vLLM's
    -1 is as many as it reads.
    """
    if tokens is None or tokens == -1:
        return
    text = call.service.model(model).card.text
    if text is not None and tokens < text.max_tokens:
        raise BadRequest(
            f"Texts are truncated to what the model reads, which is {text.max_tokens} tokens; "
            f"leave {param} out.",
            param=param,
        )


def check_output_dimension(call: Call, model: str | None, dimensions: int | None) -> None:
    """Raises DimensionsUnsupported as the service does, with Cohere's and Voyage's word for it."""
    if dimensions is not None:
        check_dimensions(dimensions, call.service.model(model).card, param="output_dimension")


def encoding_of(kind: str, *, is_base64: bool = False) -> Encoding:
    """Of vectors of one of `VECTOR_TYPES`, or of "base64", which is float32's."""
    if kind == "base64":
        return Encoding("float32", is_base64=True)
    return Encoding(VECTOR_TYPES[kind], is_base64)


def message_of(error: RaylensError) -> str:
    """An error's message where nothing else can name the item that it is about: `images[3]: …`."""
    return f"{error.param}: {error.message}" if error.items else error.message


def string_error(error: RaylensError, request_id: str) -> StringError:
    """How Weaviate and the Open Inference Protocol write an error."""
    return {"error": message_of(error)}


def detail_error(error: RaylensError, request_id: str) -> DetailError:
    """How Immich and Voyage do."""
    return {"detail": message_of(error)}
