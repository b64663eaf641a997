"""What `/v1/models…` and the handle's `info()` return about the served models and the limits."""

from typing import Any

from deployments.service.embedding import EmbeddingService
from deployments.settings import PUBLIC_LIMITS, Limits
from deployments.wire import ModelCard


def model_list(service: EmbeddingService) -> dict[str, Any]:
    """OpenAI's list, with an entry for each loaded model. Raises Unavailable if none is loaded."""
    limits = service.settings.limits
    loaded = [model for model in service.models if model.is_loaded] or service.models[:1]
    models = [model_entry(model.card, limits) for model in loaded]
    return {"object": "list", "data": models, "limits": _shown(limits)}


def model_entry(card: ModelCard, limits: Limits) -> dict[str, Any]:
    """One model's entry in that list."""
    height, width = card.pixels.height_width
    return {
        "id": card.id,
        "object": "model",
        "created": card.loaded_unix_s,
        "owned_by": "raylens",
        "aliases": card.aliases,
        "dimensions": card.dimensions,
        "vectors_per_image": card.vectors_per_image or 1,
        "grid": card.grid,
        "score": card.score,
        "image_size": height if height == width else [height, width],
        "max_text_tokens": card.text.max_tokens if card.text else None,
        "modalities": card.modalities,
        "precision": card.precision,
        "precision_reason": card.precision_reason,
        "engine": card.engine,
        "engine_reason": card.engine_reason,
        "device": card.device,
        "device_reason": card.device_reason,
        "revision": card.revision,
        "matryoshka": card.matryoshka,
        "max_items": limits.max_items,
        "limits": _shown(limits),
    }


def _shown(limits: Limits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in PUBLIC_LIMITS}
