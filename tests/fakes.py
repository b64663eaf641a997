"""Stand-ins for what needs Ray, torch or a network, passed in where the real ones go."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from deployments.card import ModelCard, PixelSpec
from deployments.engine import Answer, Pixels
from deployments.errors import RaylensError, Unavailable
from deployments.images.fetch import Fetcher
from deployments.images.files import ImageRoots
from deployments.loader import ImageLoader
from deployments.service import EmbeddingService
from deployments.settings import Settings

CARD = ModelCard(
    id="fake",
    revision="r1",
    dimensions=12,
    modalities=("image",),
    pixels=PixelSpec(resize=("shortest_edge", 8), resample=3, crop=(8, 8)),
    precision="float32",
    device="cpu",
    device_reason="it is a fake",
    loaded_unix_s=1_700_000_000,
)


class FakeModel:
    """Its 12 numbers are the mean colours of the image's four quarters, centred on zero."""

    stack_bytes = 4 * 1024 * 1024

    def __init__(self, card: ModelCard | None = CARD) -> None:
        self.loaded_card = card
        self.stacks: list[Pixels] = []
        self.error: RaylensError | Exception | None = None

    @property
    def card(self) -> ModelCard:
        if self.loaded_card is None:
            raise Unavailable("The model is still being loaded; retry.", retry_after_s=5)
        return self.loaded_card

    async def ready(self) -> ModelCard:
        return self.card

    async def embed(self, stack: Pixels, deadline: float) -> Answer:
        if self.error is not None:
            raise self.error
        self.stacks.append(stack)
        quarters = stack.reshape(len(stack), 2, 4, 2, 4, 3).mean(axis=(2, 4))
        vectors = quarters.reshape(len(stack), 12).astype(np.float32) - 127.5
        return Answer(vectors, 1.5, 2.5)


def service(
    model: FakeModel | None = None,
    *,
    roots: Sequence[Path] = (),
    fetcher: Fetcher | None = None,
    settings_model: dict[str, Any] | None = None,
    **sections: Any,
) -> EmbeddingService:
    """The real service around a fake model; `settings_model` is the section `model`."""
    settings = Settings(model=settings_model or {}, **sections)  # type: ignore[arg-type]
    limits = settings.limits
    return EmbeddingService(
        settings,
        model=model or FakeModel(),
        loader=ImageLoader(
            settings,
            roots=ImageRoots(roots, max_bytes=limits.max_image_bytes),
            fetcher=fetcher or Fetcher(settings.fetch, max_bytes=limits.max_image_bytes),
            threads=ThreadPoolExecutor(2),
        ),
    )
