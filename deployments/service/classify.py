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
from deployments.service.embedding import Embedded, EmbeddingService
from deployments.service.job import Context, ItemGroup, Options, Timing
from deployments.service.vectors import as_matrix, probabilities
from deployments.settings import Limits
from deployments.wire import ModelCard, TextSpec, Vectors

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
        options: Options | None = None,
    ) -> tuple[Vectors, ModelCard, Timing]:
        """(items, labels) probabilities, and the card of the model that computed them. `{}` in
        `template` stands for the label.

        Raises TextUnsupported for a model without a text tower, TooManyItems, TextTooLong,
        BodyTooLarge, and what embedding the items raises.
        """
        _text_spec(self._service.model(context.model).card)
        _check_sizes(len(group.items), labels, template, self._service.settings.limits)
        prompts = [template.replace("{}", label) for label in labels]
        # Labels first, not concurrently with the items: each is admitted like a request.
        while True:
            parts = await self._labels(prompts, context, options)
            parts.append(await self._service.embed([group], context, options))
            card = parts[-1].card
            if all(part.card.identity == card.identity for part in parts):
                break  # otherwise, the model was replaced in the middle
        timing = Timing()
        for part in parts:
            timing.add(part.timing)
        *labelled, items = (as_matrix(part.rows) for part in parts)
        rule = _text_spec(card)
        return probabilities(items @ np.concatenate(labelled).T, rule), card, timing

    async def _labels(
        self, prompts: Sequence[str], context: Context, options: Options | None
    ) -> list[Embedded]:
        """In parts; vectors of earlier requests come from the service's cache."""
        size = self._service.settings.limits.max_items
        parts = []
        for start in range(0, len(prompts), size):
            items = [TextItem(prompt) for prompt in prompts[start : start + size]]
            part = ItemGroup("labels", items, first=start)
            parts.append(await self._service.embed([part], context, options))
        return parts


def _text_spec(card: ModelCard) -> TextSpec:
    """Raises TextUnsupported."""
    if card.text is None:
        raise TextUnsupported(
            f"{card.id} has no text tower to compare labels with.", param="labels"
        )
    return card.text


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
