"""What several dialects have in common: items as lists of parts, truncation, types of vectors."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pybase64
from numpy.typing import NDArray

from deployments.api.call import Call
from deployments.api.render import quantised
from deployments.api.schema import VectorType
from deployments.errors import BadRequest, InvalidItem
from deployments.items import Item, parse_item
from deployments.wire import Vectors

Truncate = Literal["NONE", "START", "END"]
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

    Raises InvalidItem for several parts, because the model has one vector for each of them, and
    whatever `read` raises.
    """
    if isinstance(content, Mapping) and "content" in content:
        content = content["content"]
    if isinstance(content, list):
        if len(content) != 1:
            raise InvalidItem(
                "An item has exactly one part, an image or a text: the model has no vector for "
                "both together. Send each as an item of its own."
            )
        content = content[0]
    return read(content)


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
    """Raises BadRequest if texts should be truncated to fewer `tokens` than the model reads."""
    text = call.service.model(model).card.text
    if tokens is not None and text is not None and tokens < text.max_tokens:
        raise BadRequest(
            f"Texts are truncated to what the model reads, which is {text.max_tokens} tokens; "
            f"leave {param} out.",
            param=param,
        )


def typed(vectors: Vectors, kind: str) -> NDArray[Any] | list[str]:
    """(N, D) float32 as one of `VECTOR_TYPES`, or for "base64" the bytes of each float32 row."""
    if kind == "base64":
        return base64_rows(quantised(vectors, "float32"))
    return quantised(vectors, VECTOR_TYPES[kind])


def base64_rows(array: NDArray[Any]) -> list[str]:
    return [pybase64.b64encode(row).decode() for row in array]
