"""The service with a model that sleeps: everything else is real, down to the batches.

For machines with too few processors for several replicas of a real model.
"""

import asyncio
import os
from functools import partial
from typing import Any

import numpy as np
from ray.serve import Application

from deployments.config import load_settings
from deployments.embedder.deployment import Embedder
from deployments.ingress import Ingress
from deployments.wire import Loaded, Pixels, PixelSpec, Tokens, Vectors

LOADED = Loaded(
    id="sleeping",
    revision=None,
    identity=b"sleeping",
    dimensions=8,
    vectors_per_image=None,
    pixels=PixelSpec(resize=("shortest_edge", 8), resample=2, crop=(8, 8)),
    text=None,
    precision="float32",
    precision_reason="it does not compute",
    engine="openvino",
    engine_reason="it does not compute",
    device="cpu",
    device_reason="it does not compute",
)


class SleepingEngine:
    """An `Engine` with one lane that takes the same time for the same batch."""

    loaded = LOADED
    tokenizer_json = None
    lanes = text_lanes = 1

    def __init__(self, batch_s: float, image_s: float) -> None:
        self._batch_s, self._image_s = batch_s, image_s

    async def encode(self, pixels: Pixels) -> Vectors:
        await asyncio.sleep(self._batch_s + self._image_s * len(pixels))
        vectors = np.ones((len(pixels), LOADED.dimensions), np.float32)
        vectors[:, 0] += os.getpid() % 10_000  # so that an answer tells which replica it is from
        return vectors

    async def encode_text(self, tokens: Tokens) -> Vectors:
        raise ValueError("the model has no text tower")

    async def warm_up(self, *, images: int, texts: int) -> None:
        pass

    async def prove(self) -> None:
        pass

    def check(self, *, stuck_after_s: float) -> None:
        pass


async def load(_: object, *, has_gpu: bool, batch_s: float, image_s: float) -> SleepingEngine:
    """In place of `load_engine`."""
    return SleepingEngine(batch_s, image_s)


def build_app(args: dict[str, Any]) -> Application:
    """Like `deployments.app.build_app`; `sleeps` in `args` are `batch_s` and `image_s`."""
    args = dict(args)
    sleeps = args.pop("sleeps")
    settings = load_settings(args)
    embedder: Any = Embedder
    bound = embedder.bind(settings.model, "it does not compute", partial(load, **sleeps))
    return Ingress.bind(settings, [bound])  # type: ignore[attr-defined]  # a serve.Deployment
