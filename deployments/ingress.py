"""The ingress deployment: HTTP and handle calls in, stacks out to the model deployments."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from deployments.api.allocator import give_large_blocks_back, trim
from deployments.api.listing import model_list
from deployments.api.render import quantised, ranked_labels
from deployments.api.routes import Api
from deployments.api.schema import ClassifyBody, Dtype, EmbeddingOptions, parse
from deployments.autoscaling.processor_time import ProcessorTime
from deployments.checkpoints import open_clip_names
from deployments.embedder.client import EmbedderClient
from deployments.embedder.cold_start import ColdStart
from deployments.errors import BadRequest, RaylensError, TextUnsupported, Unavailable
from deployments.items import PathItem, TextItem, parse_items
from deployments.metrics.declared import IngressMetrics
from deployments.metrics.export import Exporter
from deployments.pixels.workers import DecodeWorkers
from deployments.ray_internals import NodePort, running_replicas
from deployments.service.causes import CallerErrorFilter
from deployments.service.classify import Classifier
from deployments.service.embedding import EmbeddingService
from deployments.service.job import Context, ItemGroup, OnError, Options
from deployments.service.loader import ImageLoader
from deployments.service.vectors import as_matrix, cosines
from deployments.settings import Settings
from deployments.sources.fetch import Fetcher
from deployments.sources.files import ImageRoots
from deployments.threads import thread_count
from deployments.tracing import stage_spans
from deployments.wire import ModelCard, Vector, Vectors

logger = logging.getLogger("ray.serve")

TRIM_EVERY_S = 5.0  # how often free memory goes back to the kernel
# How long a new replica waits for models that are already serving before it takes requests itself.
LOAD_FIRST_S = 5.0

SEVERAL = Options(several=True)


@serve.deployment(
    # The service has its own limit, in items, and answers 429 beyond it.
    max_ongoing_requests=10_000,
    health_check_period_s=1,
    graceful_shutdown_timeout_s=20,
    max_surge_percent=100,  # a new version starts before the old one stops
    # Decode threads share one machine with the model; on a cluster, reserve CPUs for them.
    ray_actor_options={"num_cpus": 0},
)
@serve.ingress()
class Ingress:
    """The application's front: `serve.get_app_handle("raylens")` returns a handle to this.

    Every method returns within `limits.request_timeout_s` and raises a RaylensError, with `code`
    and `status`, for a bad item. Vectors are float32 with unit norm. A path may be a string or a
    `pathlib` path.
    """

    def __init__(self, settings: Settings, embedders: list[DeploymentHandle[Any]]) -> None:
        self._port = NodePort()
        give_large_blocks_back()
        logger.addFilter(CallerErrorFilter())
        limits = settings.limits
        metrics = self._metrics = IngressMetrics()
        self._exporter = Exporter(metrics)
        self._fetcher = Fetcher(settings.fetch, max_bytes=limits.max_image_bytes, metrics=metrics)
        models = (settings.model, *settings.models)
        configured = {name for model in models for name in (model.name, *model.aliases)}
        self._models = [
            EmbedderClient(
                embedder,
                names=frozenset({model.name, *model.aliases}),
                # What the settings call a model goes before what OpenCLIP calls another.
                others=frozenset(open_clip_names.names_of(model)) - configured,
                request_timeout_s=limits.request_timeout_s,
                prepare=self._warm_up,
                cold_start=ColdStart(model.cold_start, partial(running_replicas, embedder)),
                metrics=metrics,
            )
            for embedder, model in zip(embedders, models, strict=True)
        ]
        self._workers = DecodeWorkers(settings.decode, max_pixels=limits.max_image_pixels)
        loader = ImageLoader(
            settings,
            roots=ImageRoots(settings.image_roots, max_bytes=limits.max_image_bytes),
            fetcher=self._fetcher,
            workers=self._workers,
            threads=thread_count(settings.decode.threads),
        )
        self._service = EmbeddingService(
            settings,
            models=self._models,
            loader=loader,
            metrics=metrics,
            trace=stage_spans(),
        )
        context = ray.get_runtime_context()
        self._processors = ProcessorTime(context.get_assigned_resources().get("CPU", 0))
        self._trimmed = 0.0

    def __serve_build_asgi_app__(self) -> Starlette:
        return Api(self._service).app(lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Spans the replica's life: Serve enters it before any request arrives."""
        await self._fetcher.start()
        loading = [asyncio.create_task(model.wait_until_loaded()) for model in self._models]
        await asyncio.wait(loading, timeout=LOAD_FIRST_S)
        self._exporter.start()
        try:
            yield
        finally:
            for task in loading:
                task.cancel()
            self._workers.close()
            await self._fetcher.close()

    async def _warm_up(self, card: ModelCard) -> None:
        try:
            await asyncio.to_thread(self._workers.warm_up, card.pixels)
        except Exception:  # only the first images take longer then
            logger.exception("The decode workers could not be warmed up.")

    async def check_health(self) -> None:
        self._port.check()
        self._exporter.check()
        if time.monotonic() - self._trimmed > TRIM_EVERY_S:
            self._trimmed = time.monotonic()
            await asyncio.to_thread(trim)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve while the deployment has an `autoscaling_config`, for its policy."""
        return await asyncio.to_thread(self._processors.stats)

    async def embed(
        self,
        items: Sequence[Any],
        *,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        dtype: Dtype = "float32",
        on_error: OnError = "fail",
        model: str | None = None,
    ) -> list[NDArray[Any] | RaylensError]:
        """For each item, in any accepted form or as an image's bytes, a (D,) vector, or (P, D) of a
        model that gives several; or, under "report", its error. With the `dtype` "ubinary", a
        vector has D / 8 bytes."""
        asked: dict[str, Any] = {"dimensions": dimensions, "normalize": normalize}
        asked |= {"truncate": truncate, "dtype": dtype, "on_error": on_error}
        options = parse(EmbeddingOptions, asked).options()
        group = ItemGroup("input", parse_items(as_list(items)))
        rows = await self._rows([group], options, model=model)
        if dtype == "float32":
            return [*rows]
        return [r if isinstance(r, RaylensError) else quantised(r, dtype) for r in rows]

    async def classify(
        self,
        items: Sequence[Any],
        labels: Sequence[str],
        template: str | None = None,
        *,
        model: str | None = None,
    ) -> list[list[tuple[str, float]]]:
        """For each item, (label, probability) of all labels, the best first."""
        asked = {"input": as_list(items), "labels": list(as_list(labels, "labels"))}
        body = parse(ClassifyBody, {**asked, "template": template})
        group = ItemGroup("input", parse_items(body.input))
        with self._metrics.answering("classify"):
            async with self._service.time_limit() as deadline:
                rows, _, _ = await Classifier(self._service).classify(
                    group, body.labels, body.template, Context(model, deadline)
                )
        return await asyncio.to_thread(lambda: [*ranked_labels(rows, body.labels)])

    async def embed_image(self, path: str | Path) -> Vector:
        """(D,) for a file under one of the image roots; or (P, D), as all methods that embed."""
        return await self._vector({"path": path})

    async def embed_image_url(self, url: str) -> Vector:
        """(D,) for an image fetched over http(s)."""
        return await self._vector({"url": url})

    async def embed_image_base64(self, data: str | bytes) -> Vector:
        """(D,) for base64, as text or ASCII bytes, or a whole data URI."""
        text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
        return await self._vector({"base64": text})

    async def embed_text(self, text: str) -> Vector:
        """(D,) for a text."""
        return await self._vector({"text": text})

    async def batch_embed_images(self, items: Sequence[Any]) -> Vectors:
        """(N, D) for images in any accepted form; bare strings are paths, URLs or data URIs."""
        parsed = [
            PathItem(item.text) if isinstance(item, TextItem) and isinstance(given, str) else item
            for given, item in zip(as_list(items), parse_items(items), strict=True)
        ]
        return await self._vectors(ItemGroup("input", parsed), options=SEVERAL)

    async def batch_embed_text(self, texts: Sequence[str]) -> Vectors:
        """(N, D) for texts."""
        return await self._vectors(_texts(texts), options=SEVERAL)

    async def text_image_similarity(self, text: str, path: str | Path) -> float:
        """Cosine of a text and a file."""
        return await self._similarity({"text": text}, {"path": path})

    async def image_text_similarity(self, path: str | Path, text: str) -> float:
        """Cosine of a file and a text."""
        return await self._similarity({"path": path}, {"text": text})

    async def text_image_url_similarity(self, text: str, url: str) -> float:
        """Cosine of a text and an image fetched over http(s)."""
        return await self._similarity({"text": text}, {"url": url})

    async def batch_text_image_similarity(
        self, texts: Sequence[str], paths: Sequence[str | Path]
    ) -> NDArray[np.float32]:
        """(N,) cosines of each text with the file at the same index."""
        left = _texts(texts)
        right = ItemGroup("paths", parse_items({"path": path} for path in as_list(paths, "paths")))
        if len(texts) != len(paths):
            raise BadRequest(f"{len(texts)} texts cannot be paired with {len(paths)} paths.")
        return cosines(*np.split(await self._vectors(left, right), 2))

    async def image_embedding_dimension(self) -> int:
        return self._models[0].card.dimensions

    async def text_embedding_dimension(self) -> int:
        card = self._models[0].card
        if card.text is None:
            raise TextUnsupported(f"{card.id} embeds images only; it has no text tower.")
        return card.dimensions

    async def ready(self) -> bool:
        """Whether every model has just worked."""
        try:
            await self._service.ready()
        except Unavailable:
            return False
        return True

    async def info(self) -> dict[str, Any]:
        """What `/v1/models` returns."""
        return model_list(self._service)

    async def _vector(self, item: dict[str, Any]) -> Vector:
        group = ItemGroup("input", parse_items([item]), is_list=False)
        vector: Vector = (await self._vectors(group, options=SEVERAL))[0]
        return vector

    async def _similarity(self, a: dict[str, Any], b: dict[str, Any]) -> float:
        # Errors name the argument: `text`, `path` or `url`.
        groups = [ItemGroup(next(iter(x)), parse_items([x]), is_list=False) for x in (a, b)]
        return float(cosines(*np.split(await self._vectors(*groups), 2))[0])

    async def _vectors(self, *groups: ItemGroup, options: Options | None = None) -> Vectors:
        """(N, D) for the items of all groups, or (N, P, D)."""
        return as_matrix(await self._rows(groups, options))

    async def _rows(
        self,
        groups: Sequence[ItemGroup],
        options: Options | None = None,
        *,
        model: str | None = None,
    ) -> list[Vector | RaylensError]:
        with self._metrics.answering("embed"):
            async with self._service.time_limit() as deadline:
                embedded = await self._service.embed(groups, Context(model, deadline), options)
        return embedded.rows


def _texts(texts: Sequence[str]) -> ItemGroup:
    return ItemGroup("texts", parse_items({"text": text} for text in as_list(texts, "texts")))


def as_list(items: Any, name: str = "input") -> Sequence[Any]:
    """`items`, if it is a list, tuple or other sequence and not empty. Raises BadRequest."""
    if isinstance(items, str | bytes) or not isinstance(items, Sequence) or not items:
        raise BadRequest("This takes a list of at least one item.", param=name)
    return items
