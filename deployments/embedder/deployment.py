"""The model deployment: one loaded model behind its gates and `@serve.batch`."""

import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from deployments.checkpoints import open_clip_names
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.embedder.gate import Gate, Work
from deployments.embedder.messages import STACK_BYTES
from deployments.embedder.proof import Proof
from deployments.embedder.routing import FewestUnderWay
from deployments.metrics.declared import EmbedderMetrics
from deployments.metrics.export import Exporter
from deployments.models.engines.choice import load_engine
from deployments.models.engines.engine import Engine, check_pixels, check_tokens
from deployments.ray_internals import BatchLoop, NodePort
from deployments.settings import Batching, ModelSettings
from deployments.tracing import stage_spans
from deployments.wire import (
    Loaded,
    ModelCard,
    Pixels,
    Stack,
    StackVectors,
    Tokens,
    Vectors,
    WrongModelError,
    join_tokens,
)

logger = logging.getLogger("ray.serve")

# 32 texts of 512 tokens would keep a large text tower busy for two minutes on a CPU.
TOKENS_AT_A_TIME = 2048


class BatchedTower:
    """One modality of the model: a gate, and `@serve.batch` behind it."""

    def __init__(
        self,
        modality: str,
        forward: Callable[[list[Stack]], Awaitable[list[Vectors]]],
        *,
        metrics: EmbedderMetrics,
        lanes: int,
        max_batch_size: int,
        linger_s: float,
    ) -> None:
        async def run(pieces: list[Stack]) -> list[Vectors]:
            metrics.batch_size.observe(sum(len(piece) for piece in pieces), modality)
            began = time.monotonic()
            vectors = await forward(pieces)
            metrics.batch_seconds.observe(time.monotonic() - began, modality)
            return vectors

        def size(pieces: list[Stack]) -> int:
            items = sum(len(piece) for piece in pieces)
            # `@serve.batch` refuses a piece that is larger than a batch, and its loop ends if that
            # piece's caller has left. The gate cuts none, but some that it has cut may be on their
            # way when `reconfigure` lowers the limit: each is a batch of its own.
            return min(items, self.gate.max_batch_size) if len(pieces) == 1 else items

        # Decorated here and not in a class, because the settings are known only now.
        self._batched: Any = serve.batch(
            max_batch_size=max_batch_size,
            batch_wait_timeout_s=0,
            max_concurrent_batches=lanes,
            batch_size_fn=size,
        )(run)
        self._loop = BatchLoop(self._batched)
        self.gate = Gate(
            self._batched, lanes=lanes, max_batch_size=max_batch_size, linger_s=linger_s
        )
        metrics.queue_items.watch(lambda: self.gate.state().waiting, modality)

    def reconfigure(self, *, max_batch_size: int, linger_s: float) -> None:
        self.gate.max_batch_size = max_batch_size
        self.gate.linger_s = linger_s
        self._batched.set_max_batch_size(max_batch_size)

    async def check(self) -> None:
        """Raises RuntimeError if one of the loops has ended, which only a bug can cause."""
        self.gate.check()
        await self._loop.check()


@serve.deployment(
    # Calls that wait in the gate, up to a stack each. More than two batches' worth, or the gate
    # could not fill a batch while another runs.
    max_ongoing_requests=256,
    max_queued_requests=-1,  # the ingress refuses what would wait too long
    # A replica is replaced after three checks in a row that fail or take this long. They run on the
    # event loop, which never waits for the model.
    health_check_period_s=1,
    health_check_timeout_s=5,
    graceful_shutdown_timeout_s=20,
    max_surge_percent=100,  # a new version starts before the old one stops
    ray_actor_options={"num_cpus": 1},
    request_router_config=RequestRouterConfig(request_router_class=FewestUnderWay),
)
class Embedder:
    """Holds the model. Its callers are the ingress replicas, through deployment handles."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: ModelSettings,
        placement: str,
        load: Callable[..., Awaitable[Engine]] | None = None,
    ) -> None:
        """`placement` says why the replica was scheduled on a CPU or a GPU. `load` replaces
        `load_engine`, for measurements of everything but the model."""
        self._port = NodePort()
        self._settings = settings
        self._replica = uuid.uuid4().hex
        metrics = EmbedderMetrics()
        self._exporter = Exporter(metrics)
        self._trace = stage_spans()
        began = time.monotonic()
        has_gpu = bool(ray.get_gpu_ids())
        self._engine = await (load or load_engine)(settings, has_gpu=has_gpu)
        self._proof = Proof(self._engine.prove)
        await self._warm_up(settings)
        loaded = self._engine.loaded
        check_fits(loaded)
        reported = {field.name: getattr(loaded, field.name) for field in fields(Loaded)}
        self._card = ModelCard(
            **{**reported, "device_reason": f"{placement}; {loaded.device_reason}"},
            aliases=(*settings.aliases, *open_clip_names.names_of(settings)),
            matryoshka=settings.matryoshka,
            loaded_unix_s=int(time.time()),
        )
        linger_s = settings.batch_linger_ms / 1e3
        # Two queues, so that texts never wait behind a pile of images.
        self._images = BatchedTower(
            "image",
            self._encode_pixels,
            metrics=metrics,
            lanes=self._engine.lanes,
            max_batch_size=settings.max_batch_size,
            linger_s=linger_s,
        )
        self._texts: BatchedTower | None = None
        if loaded.text is not None:
            self._texts = BatchedTower(
                "text",
                self._encode_tokens,
                metrics=metrics,
                lanes=self._engine.text_lanes,
                max_batch_size=settings.max_text_batch_size,
                linger_s=linger_s,
            )
        self._exporter.start()
        logger.info(
            f"Model {loaded.id} is ready after {time.monotonic() - began:.1f} s: {loaded.engine} "
            f"on {loaded.device} in {loaded.precision}, {loaded.dimensions} dimensions. "
            f"Engine: {loaded.engine_reason}. Device: {self._card.device_reason}. "
            f"Precision: {loaded.precision_reason}."
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes new batch settings from the Serve config without a restart.

        Keeps the current settings if the new ones are invalid or the model cannot run with them. If
        this raised, Serve would stop the replicas that serve, and could start no others.
        """
        batching = Batching(**self._settings.model_dump(include=set(Batching.model_fields)))
        try:
            batching = Batching(**{**batching.model_dump(), **user_config})
            await self._warm_up(batching)
        except Exception as error:
            reason = " ".join(str(error).split())
            logger.error(f"Ignoring an invalid user_config; the batch settings stay: {reason}")
            return
        linger_s = batching.batch_linger_ms / 1e3
        self._images.reconfigure(max_batch_size=batching.max_batch_size, linger_s=linger_s)
        if self._texts is not None:
            self._texts.reconfigure(max_batch_size=batching.max_text_batch_size, linger_s=linger_s)
        logger.info(
            f"The model takes batches of at most {batching.max_batch_size} images or "
            f"{batching.max_text_batch_size} texts, with a linger of "
            f"{batching.batch_linger_ms:g} ms."
        )

    async def embed(
        self, stack: Pixels, identity: bytes, tenant: str | None = None, refused: float = 0.0
    ) -> StackVectors:
        """(N, H, W, 3) in the geometry of the card with this identity to N raw vectors.

        `refused` is how many more images the ingress replica has refused since its last call.
        Raises WrongModelError, and ValueError for another shape or dtype.
        """
        self._check_identity(identity)
        check_pixels(stack, self._card.pixels)  # or it would fail those that share a batch with it
        return await self._submit(self._images, stack, tenant, refused)

    async def embed_text(
        self, stack: Tokens, identity: bytes, tenant: str | None = None, refused: float = 0.0
    ) -> StackVectors:
        """(N, L) token ids to N raw vectors in the images' space; otherwise like `embed`.

        Raises ValueError too without a text tower.
        """
        self._check_identity(identity)
        check_tokens(stack, self._card.text)
        assert self._texts is not None  # noqa: S101  (it comes with `text`)
        return await self._submit(self._texts, stack, tenant, refused)

    def _check_identity(self, identity: bytes) -> None:
        """Before a stack joins a batch, which another model's pixels or token ids could fail."""
        if identity != self._card.identity:
            raise WrongModelError(self._card.identity)

    async def _submit(
        self, tower: BatchedTower, stack: Stack, tenant: str | None, refused: float
    ) -> StackVectors:
        made = await tower.gate.submit(stack, tenant, refused=refused)
        if self._trace is not None:
            self._trace("queue", made.queue_ms / 1e3, ago_s=made.model_ms / 1e3)
            self._trace("model", made.model_ms / 1e3)
        return made._replace(queue=tower.gate.state()._replace(replica=self._replica))

    async def tokenizer(self) -> tuple[bytes, str]:
        """The card's identity, and the tokenizer of the model's text tower, for
        `TextTokenizer`."""
        json = self._engine.tokenizer_json
        if json is None:
            raise RuntimeError("the model has no text tower")
        return self._card.identity, json

    async def ready(self) -> ModelCard:
        """The card. Raises if the model does not work."""
        await self._proof.ready()
        return self._card

    async def check_health(self) -> None:
        """Called by Serve every second; a raised error replaces the replica."""
        self._port.check()
        await self._images.check()
        if self._texts is not None:
            await self._texts.check()
        self._exporter.check()
        self._proof.check()
        self._engine.check(stuck_after_s=self._settings.stuck_after_s)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve while the deployment has an `autoscaling_config`, for its policy."""
        towers = [tower for tower in (self._images, self._texts) if tower is not None]
        works = [tower.gate.work() for tower in towers]
        return {name: math.fsum(getattr(w, name) for w in works) for name in Work._fields}

    async def _warm_up(self, batching: Batching) -> None:
        await self._engine.warm_up(
            images=batching.max_batch_size, texts=batching.max_text_batch_size
        )

    async def _encode_pixels(self, pieces: list[Pixels]) -> list[Vectors]:
        pixels = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        vectors = await self._proof.judge(self._engine.encode(pixels))
        return _split(vectors, pieces)

    async def _encode_tokens(self, pieces: list[Tokens]) -> list[Vectors]:
        tokens = join_tokens(pieces)
        # One after another: in torch, images get a turn between long texts.
        rows = max(1, TOKENS_AT_A_TIME // tokens.shape[1])
        vectors = []
        for start in range(0, len(tokens), rows):
            part = self._engine.encode_text(tokens[start : start + rows])
            vectors.append(await self._proof.judge(part))
        split = _split(np.concatenate(vectors), pieces)
        if split[0].ndim == 3:  # a vector for each token: as many as the piece came with
            return [part[:, : piece.shape[1]] for part, piece in zip(split, pieces, strict=True)]
        return split


def check_fits(loaded: Loaded) -> None:
    """Raises CheckpointError if the vectors of one image do not fit into an answer to the
    ingress."""
    if loaded.vectors_bytes > STACK_BYTES:
        raise CheckpointError(
            f"model {loaded.id!r} gives {loaded.vectors_per_image} vectors of "
            f"{loaded.dimensions} numbers for an image, which is more than Ray lets through in one "
            "message; set RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH in the environment of the "
            f"cluster to {2 * loaded.vectors_bytes}, or choose another model.pooling"
        )


def _split(vectors: Vectors, pieces: list[Any]) -> list[Vectors]:
    """The vectors of each piece, from those of all pieces together."""
    return np.split(vectors, np.cumsum([len(piece) for piece in pieces])[:-1])
