"""Whether a request may have what it asks for, from this model and within the limits."""

from collections.abc import Sequence

import numpy as np

from deployments.errors import BadRequest, DimensionsUnsupported, TooManyItems
from deployments.items import Parsed, TextItem
from deployments.service.job import ItemGroup, Options
from deployments.wire import ModelCard

# Of each number of the model's vectors, whatever the answer makes of it.
BYTES_IN_MEMORY = 4
# More than any model puts around a text.
PROMPT_TOKENS = 64


def too_many_items(number: int, limit: int, *, param: str) -> TooManyItems:
    return TooManyItems(
        f"{number} items are more than the {limit} that one request may have; split the request.",
        param=param,
    )


def check_options(options: Options) -> None:
    """Raises BadRequest. Options from HTTP are valid already; those from handles may not be."""
    if options.on_error not in ("fail", "report"):
        raise BadRequest('on_error must be "fail" or "report".', param="on_error")
    for param in ("normalize", "truncate"):
        if not isinstance(getattr(options, param), bool):
            raise BadRequest(f"{param} must be true or false.", param=param)


def check_dimensions(dimensions: int | None, card: ModelCard, *, param: str = "dimensions") -> None:
    """Raises BadRequest or DimensionsUnsupported; `param` is the request's name for them."""
    if dimensions is None:
        return
    whole = isinstance(dimensions, int | np.integer) and not isinstance(dimensions, bool)
    if not whole or dimensions < 1:
        raise BadRequest(f"{param} must be a whole number, at least 1.", param=param)
    if dimensions == card.dimensions:
        return
    if not card.matryoshka:
        raise DimensionsUnsupported(
            f"The vectors of {card.id} cannot be truncated; leave {param} out or set it "
            f"to {card.dimensions}.",
            param=param,
        )
    if dimensions > card.dimensions:
        raise DimensionsUnsupported(
            f"{param} is at most {card.dimensions} for {card.id}.", param=param
        )


def check_number(
    groups: Sequence[ItemGroup], card: ModelCard, options: Options, max_bytes: int
) -> None:
    """Raises BadRequest or TooManyItems if the model gives several vectors for each item, and the
    caller cannot take these, or not so many at once."""
    each = card.vectors_per_image
    if each is None:
        return
    if not options.several:
        late = ", and POST /v1/rank compares them" if card.score == "maxsim" else ""
        raise BadRequest(
            f"{card.id} gives {each} vectors for each image, and one is needed here. POST "
            f"/v1/embeddings answers with all of them{late}.",
            param="model",
        )
    asked = options.number_bytes * (options.dimensions or card.dimensions)
    vector_bytes = max(asked, BYTES_IN_MEMORY * card.dimensions)
    number = sum(_most_vectors(item, each, card) for group in groups for item in group.items)
    if number * vector_bytes > max_bytes:
        raise TooManyItems(
            f"{number} vectors are more than {max_bytes} bytes, in memory or in the answer. Send "
            f"at most {int(max_bytes // (each * vector_bytes))} images; embeddings take less as "
            "base64, as .npy or in another dtype.",
            param=max(groups, key=lambda group: len(group.items)).name,
        )


def _most_vectors(item: Parsed, each: int, card: ModelCard) -> int:
    """How many an item has at most. A text has one for each token, which may be a byte."""
    if not isinstance(item, TextItem) or card.text is None:
        return each
    return min(card.text.max_tokens, len(item.text.encode("utf-8", "replace")) + PROMPT_TOKENS)
