"""The model deployment: one loaded model behind the gate and `@serve.batch`."""

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve

from deployments.card import ModelCard
from deployments.engine import Answer, Gate, ModelThread, Pixels
from deployments.metrics import BatchCounter, ProcessGauges
from deployments.settings import Batching, Model
from deployments.vectors import Vectors

if TYPE_CHECKING:
    from deployments.models.encoder import Encoder

logger = logging.getLogger("ray.serve")

EVERY_SIZE_UP_TO = 64


def _load(settings: Model) -> "Encoder":
    # Here, because torch belongs to the model thread from its import on, and because whoever
    # only builds the application graph should not wait seconds for it.
    from deployments.models.encoder import Encoder

    return Encoder.load(settings)


@serve.deployment(
    # Calls, of up to a stack each, that wait in the gate. More than two batches' worth, or the
    # gate could not fill a batch while another runs.
    max_ongoing_requests=256,
    max_queued_requests=1024,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=20,
    max_surge_percent=100,  # a new version starts before the old one stops
    ray_actor_options={"num_cpus": 1},
)
class Embedder:
    """Holds the model. Its callers are the ingress replicas, through deployment handles."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Model, placement: str
    ) -> None:
        """`placement` says why the replica was scheduled on a CPU or a GPU."""
        self._settings = settings
        self._warm_size = 0
        self._thread = ModelThread()
        self._gauges = ProcessGauges()
        self._batches = BatchCounter()
        began = time.monotonic()
        self._encoder = await self._thread.run(_load, settings)
        await self._warm_up(settings.max_batch_size)
        encoder = self._encoder
        pixels = encoder.preprocessing.pixels
        self._card = ModelCard(
            id=encoder.checkpoint.id,
            revision=encoder.checkpoint.revision,
            dimensions=encoder.dimensions,
            modalities=("image",),
            pixels=pixels,
            precision=encoder.precision,
            device=encoder.device,
            device_reason=f"{placement}; {encoder.device_reason}",
            loaded_unix_s=int(time.time()),
        )
        self._blank = np.zeros((1, *pixels.size, 3), dtype=np.uint8)
        # A CPU runs one batch at a time; on a GPU the next one is copied while one runs.
        slots = 1 if encoder.device == "cpu" else 2
        # Decorated here and not on the class, because the settings are known only now.
        self._batched: Any = serve.batch(
            max_batch_size=settings.max_batch_size,
            batch_wait_timeout_s=0,
            max_concurrent_batches=slots,
            batch_size_fn=lambda pieces: sum(len(piece) for piece in pieces),
        )(self._forward)
        self._gate = Gate(
            self._batched,
            slots=slots,
            max_batch_size=settings.max_batch_size,
            linger_s=settings.batch_linger_ms / 1e3,
        )
        logger.info(
            f"Model {self._card.id} is ready on {self._card.device} in {self._card.precision} "
            f"({self._card.dimensions} dimensions, {time.monotonic() - began:.1f} s). "
            f"Device: {self._card.device_reason}."
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes new batch settings from the Serve config without a restart."""
        batching = Batching(**self._settings.model_dump(include=set(Batching.model_fields)))
        batching = Batching(**{**batching.model_dump(), **user_config})
        await self._warm_up(batching.max_batch_size)
        self._gate.max_batch_size = batching.max_batch_size
        self._gate.linger_s = batching.batch_linger_ms / 1e3
        self._batched.set_max_batch_size(batching.max_batch_size)
        logger.info(
            f"The model takes batches of at most {batching.max_batch_size} images, "
            f"with a linger of {batching.batch_linger_ms:g} ms."
        )

    async def embed(self, stack: Pixels) -> Answer:
        """uint8 (N, H, W, 3), already in the geometry of the card, to N raw vectors."""
        return await self._gate.embed(stack)

    async def ready(self) -> ModelCard:
        """Runs the model once, on a blank image, and returns its card."""
        vectors = await self._thread.run(self._encoder.embed, self._blank)
        if not np.isfinite(vectors).all():
            raise RuntimeError("the model gives vectors that are not finite")
        return self._card

    async def check_health(self) -> None:
        """Called by Serve every few seconds; a raised error replaces the replica."""
        self._gauges.record()
        self._gate.check()
        await self._thread.check(stuck_after_s=self._settings.stuck_after_s)

    async def _warm_up(self, max_batch_size: int) -> None:
        # One job for each size, so that a running service answers in between. Every size of a
        # large batch would take minutes; above EVERY_SIZE_UP_TO only the largest is run.
        for size in (*range(self._warm_size + 1, EVERY_SIZE_UP_TO + 1), max_batch_size):
            if self._warm_size < size <= max_batch_size:
                await self._thread.run(self._encoder.warm_up, size)
                self._warm_size = size

    async def _forward(self, pieces: list[Pixels]) -> list[Vectors]:
        self._batches.count(sum(len(piece) for piece in pieces))
        return await self._thread.run(self._embed_pieces, pieces)

    def _embed_pieces(self, pieces: list[Pixels]) -> list[Vectors]:
        stack = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        ends = np.cumsum([len(piece) for piece in pieces])
        return np.split(self._encoder.embed(stack), ends[:-1])
