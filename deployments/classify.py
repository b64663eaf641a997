"""Zero-shot classification: the vectors of labels, kept for next time, and the model's own rule."""

from collections import OrderedDict
from collections.abc import Sequence

from deployments.card import ModelCard
from deployments.errors import (
    BodyTooLarge,
    RaylensError,
    TextTooLong,
    TextUnsupported,
    TooManyItems,
)
from deployments.items import Item, TextItem
from deployments.service import EmbeddingService
from deployments.settings import MIB, Limits
from deployments.stacks import Model, Timing
from deployments.vectors import Vector, Vectors, probabilities, stack_rows

# About 20,000 labels of 768 dimensions.
CACHE_BYTES = 64 * MIB
# Of JSON around each label and its probability in the answer.
ENTRY_BYTES = 50

Key = tuple[str, str | None, str]
"""Model, revision and prompt."""


class LabelCache:
    """Vectors of labels; the least recently used go first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: OrderedDict[Key, Vector] = OrderedDict()

    def get(self, key: Key) -> Vector | None:
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: Key, vector: Vector) -> None:
        if key not in self._vectors:
            # A copy, because a view would keep the whole batch that it is a row of.
            self._vectors[key] = vector.copy()
            self._bytes += _size(key, vector)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._vectors.popitem(last=False))


def _size(key: Key, vector: Vector) -> int:
    return vector.nbytes + 4 * len(key[2])  # at most four bytes a character


class Classifier:
    """Gives each item the probability of each label, as the model's authors compute it."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service
        self._cache = LabelCache()

    async def classify(
        self,
        items: Sequence[Item | RaylensError],
        labels: Sequence[str],
        template: str,
        *,
        model: Model,
        params: Sequence[str],
        deadline: float,
    ) -> tuple[Vectors, Timing]:
        """(items, labels) probabilities. `{}` in `template` stands for the label.

        Raises TextUnsupported for a model without a text tower, TooManyItems, TextTooLong,
        BodyTooLarge, and what embedding the items raises.
        """
        card = model.card
        if card.text is None:
            raise TextUnsupported(f"{card.id} has no text tower to compare labels with.")
        _check_sizes(len(items), labels, template, self._service.settings.limits)
        prompts = [template.replace("{}", label) for label in labels]
        # Labels first, and not beside the items: their request is admitted like any other.
        vectors = await self._label_vectors(model, card, prompts, deadline)
        embedded = await self._service.embed(items, model=model, params=params, deadline=deadline)
        return probabilities(stack_rows(embedded.rows) @ vectors.T, card.text), embedded.timing

    async def _label_vectors(
        self, model: Model, card: ModelCard, prompts: Sequence[str], deadline: float
    ) -> Vectors:
        """(L, D); those that are not in the cache are embedded, and put there."""
        keys: list[Key] = [(card.id, card.revision, prompt) for prompt in prompts]
        found = {key: self._cache.get(key) for key in keys}
        missing = [key for key, vector in found.items() if vector is None]
        names = {key: f"labels[{index}]" for index, key in reversed([*enumerate(keys)])}
        size = self._service.settings.limits.max_items
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            embedded = await self._service.embed(
                [TextItem(prompt) for _, _, prompt in part],
                model=model,
                params=[names[key] for key in part],
                deadline=deadline,
            )
            for key, vector in zip(part, stack_rows(embedded.rows), strict=True):
                self._cache.put(key, vector)
                found[key] = vector
        return stack_rows([vector for key in keys if (vector := found[key]) is not None])


def _check_sizes(items: int, labels: Sequence[str], template: str, limits: Limits) -> None:
    """Before anything is built: a template with many places makes long texts of few bytes."""
    if len(labels) > limits.max_labels:
        raise TooManyItems(
            f"{len(labels)} labels are more than the {limits.max_labels} that one request may "
            "have; split the request.",
            param="labels",
        )
    places = template.count("{}")
    for index, label in enumerate(labels):
        if len(template) + places * (len(label) - 2) > limits.max_text_chars:
            raise TextTooLong(
                f"The label makes a text of more than {limits.max_text_chars} characters; "
                "shorten it.",
                param=f"labels[{index}]",
            )
    answer = items * sum(len(label.encode("utf-8", "replace")) + ENTRY_BYTES for label in labels)
    if answer > limits.max_body_bytes:
        raise BodyTooLarge(
            f"The answer, every label for every item, would be larger than "
            f"{limits.max_body_bytes} bytes; send fewer items or labels."
        )
