"""Zero-shot classification: embeds items and labels, and applies the model's own formula."""

from collections.abc import Sequence

import numpy as np

from deployments.errors import (
    BodyTooLarge,
    TextTooLong,
    TextUnsupported,
    TooManyItems,
)
from deployments.items import TextItem
from deployments.service.embedding import EmbeddingService
from deployments.service.job import Context, ItemGroup, Timing
from deployments.service.vectors import as_matrix, probabilities
from deployments.settings import Limits
from deployments.wire import Vectors

# Of JSON around each label and its probability in the answer.
ENTRY_BYTES = 50


class Classifier:
    """Gives each item the probability of each label, as the model's authors compute it."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def classify(
        self,
        group: ItemGroup,
        labels: Sequence[str],
        template: str,
        context: Context,
    ) -> tuple[Vectors, Timing]:
        """(items, labels) probabilities. `{}` in `template` stands for the label.

        Raises TextUnsupported for a model without a text tower, TooManyItems, TextTooLong,
        BodyTooLarge, and what embedding the items raises.
        """
        card = context.model.card
        if card.text is None:
            raise TextUnsupported(
                f"{card.id} has no text tower to compare labels with.", param="labels"
            )
        _check_sizes(len(group.items), labels, template, self._service.settings.limits)
        prompts = [template.replace("{}", label) for label in labels]
        # Labels first, not concurrently with the items: each is admitted like a request.
        timing = Timing()
        vectors = await self._label_vectors(prompts, context, timing)
        embedded = await self._service.embed([group], context)
        timing.add(embedded.timing)
        return probabilities(as_matrix(embedded.rows) @ vectors.T, card.text), timing

    async def _label_vectors(
        self, prompts: Sequence[str], context: Context, timing: Timing
    ) -> Vectors:
        """(L, D); those of earlier requests come from the service's cache."""
        size = self._service.settings.limits.max_items
        vectors = []
        for start in range(0, len(prompts), size):
            items = [TextItem(prompt) for prompt in prompts[start : start + size]]
            part = ItemGroup("labels", items, first=start)
            embedded = await self._service.embed([part], context)
            timing.add(embedded.timing)
            vectors.append(as_matrix(embedded.rows))
        return np.concatenate(vectors)


def _check_sizes(items: int, labels: Sequence[str], template: str, limits: Limits) -> None:
    """Raises TooManyItems, TextTooLong or BodyTooLarge, before any text is built: a short template
    with many places makes long ones."""
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
    row_bytes = sum(len(label.encode("utf-8", "replace")) + ENTRY_BYTES for label in labels)
    if items * row_bytes > limits.max_body_bytes:
        raise BodyTooLarge(
            f"The answer, every label for every item, would be larger than "
            f"{limits.max_body_bytes} bytes; send fewer items or labels."
        )
