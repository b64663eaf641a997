"""Stand-ins for what needs Ray, torch or a network, passed in where the real ones go."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import ModelReplaced, RaylensError, Unavailable
from deployments.pixels.decode import decode
from deployments.service.embedding import EmbeddingService
from deployments.service.loader import ImageLoader
from deployments.settings import Settings
from deployments.sources.fetch import Fetcher
from deployments.sources.files import ImageRoots
from deployments.texts.tokenizer import Encoded
from deployments.tracing import StageSpans
from deployments.wire import (
    Decoded,
    ImageSpec,
    ModelCard,
    Pixels,
    PixelSpec,
    StackVectors,
    TextSpec,
    Tokens,
    Vector,
    Vectors,
)

CARD = ModelCard(
    id="fake",
    revision="r1",
    identity=b"fake",
    aliases=(),
    matryoshka=False,
    dimensions=12,
    vectors_per_image=None,
    pixels=PixelSpec(resize=("shortest_edge", 8), resample=3, crop=(8, 8)),
    text=None,
    precision="float32",
    precision_reason="it is a fake",
    engine="openvino",
    engine_reason="it is a fake",
    device="cpu",
    device_reason="it is a fake",
    loaded_unix_s=1_700_000_000,
)
PATCHES = replace(CARD, id="patches", dimensions=3, vectors_per_image=4)
"""Gives the mean colour of each quarter, row by row."""
LATE_TEXT = TextSpec(max_tokens=24, score="maxsim", logit_scale=1.0, logit_bias=0.0)
"""With PATCHES: each character of a text has a vector."""
TEXT = TextSpec(max_tokens=24, score="softmax", logit_scale=10.0, logit_bias=0.0)


class FakeTokenizer:
    """Each character is a token, and its id is the character's code point."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        ids = [[ord(c) for c in text] or [0] for text in texts]
        return [Encoded(i[: TEXT.max_tokens], len(i) > TEXT.max_tokens) for i in ids]


class FakeModel:
    """Embeds an image as 12 numbers: the mean colours of its four quarters, centred on zero.

    With a text tower, a text that ends in a colour, `#rrggbb`, gets the vector of an image of it.
    """

    stack_bytes = 4 * 1024 * 1024
    image_s = text_s = others_s = 0.0
    tokenizer: Any = FakeTokenizer()

    def __init__(self, card: ModelCard | None = CARD, *, text: TextSpec | None = None) -> None:
        self.loaded_card = replace(card, text=text, identity=card.id.encode()) if card else None
        self.names = frozenset({card.id, *card.aliases} if card else {"loading"})
        self.stacks: list[Pixels] = []
        self.token_stacks: list[Tokens] = []
        self.error: RaylensError | Exception | None = None
        self.asleep: RaylensError | None = None
        self.refused_items = 0.0

    def refusal(self) -> RaylensError | None:
        return self.asleep

    def refused(self, items: float) -> None:
        self.refused_items += items

    @property
    def card(self) -> ModelCard:
        if self.loaded_card is None:
            raise Unavailable("The model is still being loaded; retry.", retry_after_s=5)
        return self.loaded_card

    @property
    def is_loaded(self) -> bool:
        return self.loaded_card is not None

    def item_s(self, *, text: bool = False) -> float:
        return self.text_s if text else self.image_s

    async def ready(self, within_s: float = math.inf) -> ModelCard:
        return self.card

    async def reloaded(self) -> None:
        pass

    async def embed(
        self, stack: Pixels, identity: bytes, deadline: float, tenant: str | None = None
    ) -> StackVectors:
        self._refuse(identity)
        self.stacks.append(stack)
        quarters = stack.reshape(len(stack), 2, 4, 2, 4, 3).mean(axis=(2, 4))
        vectors = quarters.reshape(len(stack), 12).astype(np.float32) - 127.5
        several = self.card.vectors_per_image
        return StackVectors(vectors if several is None else _split(vectors, several), 1.5, 2.5)

    async def embed_text(
        self, stack: Tokens, identity: bytes, deadline: float, tenant: str | None = None
    ) -> StackVectors:
        self._refuse(identity)
        self.token_stacks.append(stack)
        if self.card.score == "maxsim":
            remainders = stack[:, :, None] % np.array([7, 5, 3]) - np.array([2.5, 1.5, 0.5])
            return StackVectors((remainders * (stack >= 0)[..., None]).astype(np.float32), 0.5, 1.0)
        texts = ["".join(chr(i) for i in row if i >= 0) for row in stack]
        vectors = np.stack([self._vector(text) for text in texts])
        return StackVectors(vectors, 0.5, 1.0)

    def _refuse(self, identity: bytes) -> None:
        if self.error is not None:
            raise self.error
        if identity != self.card.identity:
            raise ModelReplaced("The model is being replaced by another; retry.")

    @staticmethod
    def _vector(text: str) -> Vector:
        if re.search(r"#[0-9a-f]{6}\.?$", text):
            colour = bytes.fromhex(text.rpartition("#")[2].removesuffix("."))
            return np.array([*colour] * 4, dtype=np.float32) - 127.5
        seed = int.from_bytes(text.encode()) % 2**32
        return np.random.default_rng(seed).normal(size=12).astype(np.float32)


def _split(vectors: Vectors, several: int) -> Vectors:
    return vectors.reshape(len(vectors), several, -1)


class InProcess:
    """Decodes here, without worker processes."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, data: bytes, spec: ImageSpec, *, slow_lane: bool = False) -> Decoded:
        return decode(data, spec, max_pixels=self._max_pixels)


def service(
    model: FakeModel | None = None,
    *more: FakeModel,
    roots: Sequence[Path] = (),
    fetcher: Fetcher | None = None,
    workers: InProcess | None = None,
    trace: StageSpans | None = None,
    **sections: Any,
) -> EmbeddingService:
    """The real service around fake models."""
    settings = Settings(**sections)
    limits = settings.limits
    return EmbeddingService(
        settings,
        models=[model or FakeModel(), *more],
        loader=ImageLoader(
            settings,
            roots=ImageRoots(roots, max_bytes=limits.max_image_bytes),
            fetcher=fetcher or Fetcher(settings.fetch, max_bytes=limits.max_image_bytes),
            workers=workers or InProcess(limits.max_image_pixels),  # type: ignore[arg-type]
            threads=2,
        ),
        trace=trace,
    )
