"""The model deployment: one loaded model behind its gates and `@serve.batch`."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from ray import serve

from deployments.card import ModelCard, Pixels, Tokens
from deployments.engine import Answer, Gate, ModelThread, Stack, Streams
from deployments.metrics import BatchCounter, ProcessGauges
from deployments.replica_port import keep_to_node
from deployments.settings import Batching, Model
from deployments.threads import thread_count
from deployments.tokenizer import join
from deployments.vectors import Vectors

if TYPE_CHECKING:
    from deployments.models.encoder import Encoder

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

# So long, at most, are batches of every size run before the first caller: with a large model on a
# small machine that alone would take minutes.
WARM_UP_S = 10.0
# A model that has answered so shortly before is ready; monitors that ask often cost it nothing.
JUST_ANSWERED_S = 5.0
# Batches side by side on a CPU, each with its share of the processors.
MAX_STREAMS = 4
# 32 texts of 512 tokens would keep a large text tower busy for two minutes on a CPU.
TOKENS_AT_A_TIME = 2048


def _load(settings: Model) -> "Encoder":
    # Here, because torch belongs to the model thread from its import on, and because whoever
    # only builds the application graph should not wait seconds for it.
    from deployments.models.encoder import Encoder

    return Encoder.load(settings)


def _take_share(threads: int) -> None:
    from deployments.models.encoder import set_threads

    set_threads(threads)


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
        keep_to_node()
        self._settings = settings
        self._warm_images = 0
        self._warm_texts = 0
        self._answered = -math.inf
        self._proof: asyncio.Task[None] | None = None
        self._gauges = ProcessGauges()
        began = time.monotonic()
        whole = ModelThread()
        self._encoder = await whole.run(_load, settings)
        shares = _shares(settings, self._encoder.device)
        self._streams = Streams(whole, shares)
        self._slots = len(shares)
        await self._warm_up(settings)
        encoder = self._encoder
        self._card = ModelCard(
            id=encoder.checkpoint.id,
            revision=encoder.checkpoint.revision,
            identity=encoder.identity(),
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
        linger_s = settings.batch_linger_ms / 1e3
        batches = BatchCounter()
        # Two queues for the same threads: a text waits for one batch of images at most.
        self._images = Queue(
            "image",
            self._embed_pixels,
            batches=batches,
            slots=self._slots,
            max_batch_size=settings.max_batch_size,
            linger_s=linger_s,
        )
        self._texts: Queue | None = None
        if encoder.text is not None:
            self._texts = Queue(
                "text",
                self._embed_tokens,
                batches=batches,
                slots=self._slots,
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

    async def embed(self, stack: Pixels, caller: str | None = None) -> Answer:
        """(N, H, W, 3), already in the geometry of the card, to N raw vectors.

        No vectors for another geometry: its caller has the card of the model that this one
        replaces, and sees as much from the answer's identity.
        """
        if stack.shape[1:3] != self._card.pixels.size:
            nothing = np.empty((0, self._card.dimensions), np.float32)
            return Answer(nothing, 0.0, 0.0, self._card.identity)
        answer = await self._images.gate.embed(stack, caller)
        return answer._replace(identity=self._card.identity)

    async def embed_text(self, stack: Tokens, caller: str | None = None) -> Answer:
        """(N, L) token ids to N raw vectors in the images' space."""
        if self._texts is None:
            raise RuntimeError("the model has no text tower")
        answer = await self._texts.gate.embed(stack, caller)
        return answer._replace(identity=self._card.identity)

    async def tokenizer(self) -> tuple[bytes, str]:
        """The card's identity, and the tokenizer of the model's text tower, as JSON of the
        `tokenizers` library."""
        json: str | None = self._encoder.tokenizer_json
        if json is None:
            raise RuntimeError("the model has no text tower")
        return self._card.identity, json

    async def ready(self) -> ModelCard:
        """The card, once the model has just answered: a caller, or else this very question."""
        if time.monotonic() - self._answered > JUST_ANSWERED_S:
            # Shared, and goes on when a monitor gives up: the next one finds it done.
            if self._proof is None or self._proof.done():
                self._proof = asyncio.create_task(self._prove())
            await asyncio.shield(self._proof)
        return self._card

    async def _prove(self) -> None:
        await self._run(partial(self._encoder.warm_up, 1), items=1)
        if self._texts is not None:
            await self._run(partial(self._encoder.warm_up_text, 1), items=1)

    async def _run(self, function: Callable[[], T], *, items: int) -> T:
        result = await self._streams.run(function, items=items)
        self._answered = time.monotonic()
        return result

    async def check_health(self) -> None:
        """Called by Serve every few seconds; a raised error replaces the replica."""
        self._gauges.record()
        self._images.gate.check()
        if self._texts is not None:
            self._texts.gate.check()
        await self._streams.check(stuck_after_s=self._settings.stuck_after_s)

    async def _warm_up(self, batching: Batching) -> None:
        # One job for each size, so that a running service answers in between.
        largest = batching.max_batch_size
        began = time.monotonic()
        for size in (1, largest, *range(2, largest)):
            in_time = size == largest or time.monotonic() - began < WARM_UP_S
            if in_time and self._warm_images < size:
                await self._in_all_streams(partial(self._encoder.warm_up, size), size)
        self._warm_images = max(self._warm_images, largest)
        if self._encoder.text is not None:
            for size in (1, batching.max_text_batch_size):
                if self._warm_texts < size:
                    await self._in_all_streams(partial(self._encoder.warm_up_text, size), size)
                    self._warm_texts = size

    async def _in_all_streams(self, function: Callable[[], None], items: int) -> None:
        times = 1 if items == 1 else self._slots  # a lone item takes them all
        await asyncio.gather(*(self._run(function, items=items) for _ in range(times)))

    async def _embed_pixels(self, pieces: list[Pixels]) -> list[Vectors]:
        def embed() -> Vectors:
            return self._encoder.embed(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

        vectors = await self._run(embed, items=sum(len(piece) for piece in pieces))
        return _split(vectors, pieces)

    async def _embed_tokens(self, pieces: list[Tokens]) -> list[Vectors]:
        tokens = join(pieces)
        # In jobs of their own, so that images and health checks get in between long texts.
        rows = max(1, TOKENS_AT_A_TIME // tokens.shape[1])
        vectors = [
            await self._run(
                partial(self._encoder.embed_text, tokens[start : start + rows]),
                items=min(rows, len(tokens) - start),
            )
            for start in range(0, len(tokens), rows)
        ]
        return _split(np.concatenate(vectors), pieces)


def _shares(settings: Model, device: str) -> list[ModelThread]:
    """The threads in which batches run side by side."""
    if device != "cpu":  # one prepares its batch while the other's runs
        return [ModelThread(), ModelThread()]
    threads = thread_count(settings.threads)
    number = min(MAX_STREAMS, threads)
    start = partial(_take_share, threads // number)
    return [ModelThread(start=start) for _ in range(number)]


def _split(vectors: Vectors, pieces: list[Any]) -> list[Vectors]:
    """The vectors of each piece, from those of all pieces together."""
    return np.split(vectors, np.cumsum([len(piece) for piece in pieces])[:-1])
