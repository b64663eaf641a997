"""The model deployment: one loaded model behind its gates and `@serve.batch`."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve

from deployments.card import ModelCard, Pixels, Tokens
from deployments.engine import Answer, Gate, ModelThread, Stack
from deployments.metrics import BatchCounter, ProcessGauges
from deployments.settings import Batching, Model
from deployments.tokenizer import join
from deployments.vectors import Vectors

if TYPE_CHECKING:
    from deployments.models.encoder import Encoder

logger = logging.getLogger("ray.serve")

EVERY_SIZE_UP_TO = 64
# 32 texts of 512 tokens would keep a large text tower busy for two minutes on a CPU.
TOKENS_AT_A_TIME = 2048


def _load(settings: Model) -> "Encoder":
    # Here, because torch belongs to the model thread from its import on, and because whoever
    # only builds the application graph should not wait seconds for it.
    from deployments.models.encoder import Encoder

    return Encoder.load(settings)


class Queue:
    """What waits for the model in one modality: a gate, and `@serve.batch` behind it."""

    def __init__(
        self,
        modality: str,
        forward: Callable[[list[Stack]], Awaitable[list[Vectors]]],
        *,
        batches: BatchCounter,
        slots: int,
        max_batch_size: int,
        linger_s: float,
    ) -> None:
        async def run(pieces: list[Stack]) -> list[Vectors]:
            batches.count(modality, sum(len(piece) for piece in pieces))
            return await forward(pieces)

        # Decorated here and not on a class, because the settings are known only now.
        self._batched: Any = serve.batch(
            max_batch_size=max_batch_size,
            batch_wait_timeout_s=0,
            max_concurrent_batches=slots,
            batch_size_fn=lambda pieces: sum(len(piece) for piece in pieces),
        )(run)
        self.gate = Gate(
            self._batched, slots=slots, max_batch_size=max_batch_size, linger_s=linger_s
        )

    def reconfigure(self, *, max_batch_size: int, linger_s: float) -> None:
        self.gate.max_batch_size = max_batch_size
        self.gate.linger_s = linger_s
        self._batched.set_max_batch_size(max_batch_size)


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
        self._warm_images = 0
        self._warm_texts = 0
        self._thread = ModelThread()
        self._gauges = ProcessGauges()
        began = time.monotonic()
        self._encoder = await self._thread.run(_load, settings)
        await self._warm_up(settings)
        encoder = self._encoder
        self._card = ModelCard(
            id=encoder.checkpoint.id,
            revision=encoder.checkpoint.revision,
            aliases=settings.aliases,
            matryoshka=settings.matryoshka,
            dimensions=encoder.dimensions,
            pixels=encoder.preprocessing.pixels,
            text=encoder.text,
            precision=encoder.precision,
            precision_reason=encoder.precision_reason,
            compiled=encoder.compiled,
            device=encoder.device,
            device_reason=f"{placement}; {encoder.device_reason}",
            loaded_unix_s=int(time.time()),
        )
        # A CPU runs one batch at a time; on a GPU the next one is copied while one runs.
        slots = 1 if encoder.device == "cpu" else 2
        linger_s = settings.batch_linger_ms / 1e3
        batches = BatchCounter()
        # Two queues and one thread: on a CPU a text waits for one batch of images at most.
        self._images = Queue(
            "image",
            self._embed_pixels,
            batches=batches,
            slots=slots,
            max_batch_size=settings.max_batch_size,
            linger_s=linger_s,
        )
        self._texts: Queue | None = None
        if encoder.text is not None:
            self._texts = Queue(
                "text",
                self._embed_tokens,
                batches=batches,
                slots=slots,
                max_batch_size=settings.max_text_batch_size,
                linger_s=linger_s,
            )
        logger.info(
            f"Model {self._card.id} is ready on {self._card.device} in {self._card.precision} "
            f"({self._card.dimensions} dimensions, {time.monotonic() - began:.1f} s). "
            f"Device: {self._card.device_reason}. Precision: {self._card.precision_reason}."
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes new batch settings from the Serve config without a restart."""
        batching = Batching(**self._settings.model_dump(include=set(Batching.model_fields)))
        batching = Batching(**{**batching.model_dump(), **user_config})
        await self._warm_up(batching)
        linger_s = batching.batch_linger_ms / 1e3
        self._images.reconfigure(max_batch_size=batching.max_batch_size, linger_s=linger_s)
        if self._texts is not None:
            self._texts.reconfigure(max_batch_size=batching.max_text_batch_size, linger_s=linger_s)
        logger.info(
            f"The model takes batches of at most {batching.max_batch_size} images or "
            f"{batching.max_text_batch_size} texts, with a linger of "
            f"{batching.batch_linger_ms:g} ms."
        )

    async def embed(self, stack: Pixels) -> Answer:
        """(N, H, W, 3), already in the geometry of the card, to N raw vectors."""
        return await self._images.gate.embed(stack)

    async def embed_text(self, stack: Tokens) -> Answer:
        """(N, L) token ids to N raw vectors in the images' space."""
        if self._texts is None:
            raise RuntimeError("the model has no text tower")
        return await self._texts.gate.embed(stack)

    async def tokenizer(self) -> str:
        """The tokenizer of the model's text tower, as JSON of the `tokenizers` library."""
        json: str | None = self._encoder.tokenizer_json
        if json is None:
            raise RuntimeError("the model has no text tower")
        return json

    async def ready(self) -> ModelCard:
        """Runs the model once, on an image and a text if it reads any, and returns its card."""
        await self._thread.run(self._encoder.warm_up, 1)
        if self._texts is not None:
            await self._thread.run(self._encoder.warm_up_text, 1)
        return self._card

    async def check_health(self) -> None:
        """Called by Serve every few seconds; a raised error replaces the replica."""
        self._gauges.record()
        self._images.gate.check()
        if self._texts is not None:
            self._texts.gate.check()
        await self._thread.check(stuck_after_s=self._settings.stuck_after_s)

    async def _warm_up(self, batching: Batching) -> None:
        # One job for each size, so that a running service answers in between. Every size of a
        # large batch would take minutes; above EVERY_SIZE_UP_TO only the largest is run.
        largest = batching.max_batch_size
        for size in (*range(self._warm_images + 1, EVERY_SIZE_UP_TO + 1), largest):
            if self._warm_images < size <= largest:
                await self._thread.run(self._encoder.warm_up, size)
                self._warm_images = size
        if self._encoder.text is not None:
            for size in (1, batching.max_text_batch_size):
                if self._warm_texts < size:
                    await self._thread.run(self._encoder.warm_up_text, size)
                    self._warm_texts = size

    async def _embed_pixels(self, pieces: list[Pixels]) -> list[Vectors]:
        def embed() -> Vectors:
            return self._encoder.embed(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

        return _split(await self._thread.run(embed), pieces)

    async def _embed_tokens(self, pieces: list[Tokens]) -> list[Vectors]:
        tokens = join(pieces)
        # In jobs of their own, so that images and health checks get in between long texts.
        rows = max(1, TOKENS_AT_A_TIME // tokens.shape[1])
        vectors = [
            await self._thread.run(self._encoder.embed_text, tokens[start : start + rows])
            for start in range(0, len(tokens), rows)
        ]
        return _split(np.concatenate(vectors), pieces)


def _split(vectors: Vectors, pieces: list[Any]) -> list[Vectors]:
    """The vectors of each piece, from those of all pieces together."""
    return np.split(vectors, np.cumsum([len(piece) for piece in pieces])[:-1])
