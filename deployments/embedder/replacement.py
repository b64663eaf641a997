"""What the log says while replicas of another model serve than the settings name."""

import logging
from collections.abc import Collection

from deployments.wire import ModelCard

logger = logging.getLogger("ray.serve")


def warn_of_another(card: ModelCard, known: ModelCard | None, names: Collection[str]) -> None:
    """Warns if the model that serves is none of `names`, or runs in another precision than the one
    `known` before."""
    if card.id not in names:
        logger.warning(
            f"Model {card.id} is serving, but this ingress replica is configured for "
            f"{' or '.join(sorted(names))}: an update is under way or has failed; "
            "`serve status` says which."
        )
    elif known is None or (known.id, known.revision) != (card.id, card.revision):
        return
    elif known.precision != card.precision:
        logger.warning(
            f"Replicas of {card.id} run in {known.precision} and in {card.precision}, whose "
            "vectors are not mixed: requests take longer while both serve. If their "
            "processors differ, set model.precision to float32."
        )
