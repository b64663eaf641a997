"""Zero-shot classification: the vectors of labels, kept for next time, and the model's own rule."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from deployments.errors import RaylensError, TextTooLong, TextUnsupported, TooManyItems
from deployments.items import Item, TextItem
from deployments.service import EmbeddingService
from deployments.settings import MIB
from deployments.stacks import Timing, all_or_none
from deployments.vectors import Vector, Vectors, probabilities, stack_rows

# About 20,000 labels of 768 dimensions.
CACHE_BYTES = 64 * MIB


class LabelCache:
    """Vectors of labels by model and prompt; the least recently used go first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    def get(self, key: tuple[str, str]) -> Vector | None:
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: tuple[str, str], vector: Vector) -> None:
        if key not in self._vectors:
            self._vectors[key] = vector
            self._bytes += _size(key, vector)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._vectors.popitem(last=False))


def _size(key: tuple[str, str], vector: Vector) -> int:
    return vector.nbytes + 4 * len(key[1])  # at most four bytes a character


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
        params: Sequence[str],
        model: str | None,
        deadline: float,
    ) -> tuple[Vectors, Timing]:
        """(items, labels) probabilities. `{}` in `template` stands for the label.

        Raises TextUnsupported for a model without a text tower, TooManyItems, TextTooLong, and
        what embedding the items raises.
        """
        card = self._service.model(model).card
        if card.text is None:
            raise TextUnsupported(f"{card.id} has no text tower to compare labels with.")
        limits = self._service.settings.limits
        if len(labels) > limits.max_labels:
            raise TooManyItems(
                f"{len(labels)} labels are more than the {limits.max_labels} that one request may "
                "have; split the request.",
                param="labels",
            )
        prompts = [template.replace("{}", label) for label in labels]
        for index, prompt in enumerate(prompts):
            if len(prompt) > limits.max_text_chars:
                raise TextTooLong(
                    f"The label makes a text of more than {limits.max_text_chars} characters; "
                    "shorten it.",
                    param=f"labels[{index}]",
                )

        async def embed_items() -> tuple[Vectors, Timing]:
            embedded = await self._service.embed(
                items, params=params, model=model, deadline=deadline
            )
            return stack_rows(embedded.rows), embedded.timing

        async def embed_prompts() -> tuple[Vectors, Timing]:
            return await self._vectors(card.id, prompts, deadline), Timing()

        (images, timing), (texts, _) = await all_or_none([embed_items(), embed_prompts()])
        return probabilities(images @ texts.T, card.text), timing

    async def _vectors(self, model: str, prompts: Sequence[str], deadline: float) -> Vectors:
        found = {prompt: self._cache.get((model, prompt)) for prompt in prompts}
        missing = [prompt for prompt, vector in found.items() if vector is None]
        size = self._service.settings.limits.max_items
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            embedded = await self._service.embed(
                [TextItem(prompt) for prompt in part], model=model, deadline=deadline
            )
            for prompt, vector in zip(part, stack_rows(embedded.rows), strict=True):
                self._cache.put((model, prompt), vector)
                found[prompt] = vector
        return np.stack([vector for prompt in prompts if (vector := found[prompt]) is not None])
