"""Turns a request's items into vectors: options, limits and errors. No HTTP, no Ray."""

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deployments.errors import (
    DeadlineExceeded,
    Internal,
    ModelNotFound,
    ModelReplaced,
    RaylensError,
)
from deployments.items import source_of
from deployments.metrics.declared import IngressMetrics
from deployments.service.admission import Admission
from deployments.service.cache import VectorCache
from deployments.service.causes import CauseLog
from deployments.service.job import (
    Context,
    ItemGroup,
    Job,
    ModelClient,
    Options,
    Slot,
    Timing,
    is_text,
)
from deployments.service.loader import ImageLoader, LoadLimits
from deployments.service.options import (
    check_dimensions,
    check_number,
    check_options,
    too_many_items,
)
from deployments.service.stacks import StackEmbedder
from deployments.service.tasks import all_or_none
from deployments.service.vectors import finished
from deployments.settings import Settings
from deployments.tracing import StageSpans
from deployments.wire import ImageFacts, ModelCard, Vector

# The last part of a request's time, kept for the model to embed what has been decoded by then.
MODEL_PART = 0.1
# Before each time that a request is started again with the model that has replaced another. After
# the last one it fails: each time, its images are fetched and decoded anew.
RESTART_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass(slots=True)
class Embedded:
    """A request's result: for each item, in order, its (D,) float32 vector, or the (P, D) that the
    model gives, or its error."""

    card: ModelCard
    """Of the model that all vectors are from."""
    rows: list[Vector | RaylensError]
    images: list[ImageFacts | None]
    """The facts of each item's file; None for texts and for images that could not be read."""
    texts: int
    """How many of the vectors are of texts."""
    tokens: int
    """How many tokens of the texts the model read."""
    truncated: set[int]
    """The indices of texts that are longer than the model reads."""
    cached: int
    """Items that the model did not run for: cached, embedded by another request at the same time,
    or duplicates of an earlier item."""
    timing: Timing


class EmbeddingService:
    """Turns items into vectors; a bad item does not affect the others."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Sequence[ModelClient],
        loader: ImageLoader,
        metrics: IngressMetrics | None = None,
        trace: StageSpans | None = None,
    ) -> None:
        """The first of `models` serves requests that name none."""
        self.settings = settings
        self.metrics = metrics = metrics or IngressMetrics()
        self.models = models
        cache = VectorCache(settings.cache.max_bytes)
        self._stacks = StackEmbedder(
            loader,
            cache,
            max_text_chars=settings.limits.max_text_chars,
            metrics=metrics,
            trace=trace,
        )
        self._loader = loader
        self._causes = CauseLog()
        self.admission = Admission(settings.limits, models=models, loader=loader, metrics=metrics)
        self._limits_of: dict[str, LoadLimits] = {}  # one per key at most

    @asynccontextmanager
    async def time_limit(self) -> AsyncIterator[float]:
        """Cancels what runs inside when a request's time is up, and raises DeadlineExceeded.

        Yields the model's deadline, on the loop's clock: a little earlier, so that a model that
        does not respond can be told from a request that asks for too much.
        """
        limit_s = self.settings.limits.request_timeout_s
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now + 0.99 * limit_s) as timer:
                yield now + 0.97 * limit_s
        except TimeoutError:
            if not timer.expired():
                raise
            raise DeadlineExceeded(
                f"The request took longer than {limit_s:g} s; send fewer items or retry."
            ) from None

    async def ready(self, within_s: float = math.inf) -> list[ModelCard]:
        """The cards of all models, each of which has just worked.

        Raises Unavailable with the reason, after `within_s` seconds at the latest.
        """
        return await all_or_none([model.ready(within_s) for model in self.models])

    def model(self, name: str | None) -> ModelClient:
        """The model that a request calls `name`, an id or an alias; for None the first one.

        Raises ModelNotFound, or Unavailable while none is loaded: after a failed update, the one
        that serves has another name than the settings say.
        """
        for model in self.models:
            if name is None or name in model.names:
                return model
        if not any(model.is_loaded for model in self.models):
            self.models[0].card  # noqa: B018  # raises Unavailable
        raise ModelNotFound(
            "This service does not have that model; GET /v1/models lists what it has.",
            param="model",
        )

    async def embed(
        self, groups: Sequence[ItemGroup], context: Context, options: Options | None = None
    ) -> Embedded:
        """Embeds all items, one group after the other. Items that could not be parsed are given as
        their errors.

        Under `on_error="fail"`, raises the error of the first bad item, with all bad items in its
        `items`, by index in their parameter; under "report", errors take the place of vectors.
        """
        options = options or Options()
        listed = sum(len(group.items) for group in groups if group.is_list)
        if listed > self.settings.limits.max_items:
            longest = max(groups, key=lambda group: len(group.items))
            raise too_many_items(listed, self.settings.limits.max_items, param=longest.name)
        check_options(options)
        job = self._job(groups, context, options)
        try:
            with self.admission.admitted(job):
                job = await self._filled(job, lambda: self._job(groups, context, options))
        except RaylensError as error:
            for group in groups:
                for item in group.items:
                    self.metrics.items.add(1, source_of(item), error.code)
            raise
        if job.card.vectors_per_image is None:
            _finish(job.slots, options)
        else:  # so many numbers that other requests would wait
            await asyncio.to_thread(_finish, job.slots, options)
        bad = self._record_errors(job.slots, groups)
        if bad and options.on_error == "fail":
            raise _first(bad)
        rows = [_row_of(slot) for slot in job.slots]
        good_slots = [slot for slot in job.slots if not slot.is_bad]
        for slot in good_slots:
            self.metrics.items.add(1, source_of(slot.item), "ok")
        return Embedded(
            card=job.card,
            rows=rows,
            images=[slot.image for slot in job.slots],
            texts=sum(is_text(slot) for slot in good_slots),
            tokens=sum(slot.tokens for slot in job.slots),
            truncated={index for index, slot in enumerate(job.slots) if slot.truncated},
            cached=sum(slot.cached for slot in good_slots),
            timing=job.timing,
        )

    async def _filled(self, job: Job, again: Callable[[], Job]) -> Job:
        """The job with its rows filled, or the one made `again` after its model was replaced.

        Raises ModelReplaced if it still is after the last pause.
        """
        for pause_s in RESTART_PAUSES_S:
            try:
                await self._stacks.fill(job)
            except ModelReplaced:
                self.metrics.retries.add(1, "model_replaced")
                await job.model.reloaded()
                await asyncio.sleep(pause_s)
                job = again()
            else:
                return job
        await self._stacks.fill(job)
        return job

    def _job(self, groups: Sequence[ItemGroup], context: Context, options: Options) -> Job:
        model = self.model(context.model)
        card = model.card
        check_dimensions(options.dimensions, card)
        check_number(groups, card, options, self.settings.limits.max_body_bytes)
        return Job(
            slots=[Slot(item) for group in groups for item in group.items],
            context=context,
            model=model,
            card=card,
            tokenizer=model.tokenizer if card.text is not None else None,
            options=options,
            load_by=context.deadline - MODEL_PART * self.settings.limits.request_timeout_s,
            limits=self._limits(context.tenant),
        )

    def _limits(self, tenant: str | None) -> LoadLimits:
        """New ones for a request without a key; all requests of a key share theirs."""
        if tenant is None:
            return self._loader.limits()
        if tenant not in self._limits_of:
            self._limits_of[tenant] = self._loader.limits()
        return self._limits_of[tenant]

    def _record_errors(
        self, slots: Sequence[Slot], groups: Sequence[ItemGroup]
    ) -> list[tuple[int, RaylensError]]:
        """Names, counts and logs the bad items; returns them with their index in the parameter."""
        bad = []
        places = ((group, index) for group in groups for index in range(len(group.items)))
        for slot, (group, index) in zip(slots, places, strict=True):
            if isinstance(slot.row, RaylensError):
                slot.row.param = group.param(index)
                self.metrics.items.add(1, source_of(slot.item), slot.row.code)
                self._causes.note(slot.row)
                bad.append((group.first + index, slot.row))
        return bad


def _row_of(slot: Slot) -> Vector | RaylensError:
    if slot.row is None:  # only in a job that fails anyway, and does not get here
        raise Internal("The service failed on this item.")
    return slot.row


def _finish(slots: Sequence[Slot], options: Options) -> None:
    """Fills the rows of duplicates, and gives all vectors the form that the caller wants."""
    for slot in slots:
        first = slot.duplicate_of
        if first is not None:
            slot.row = copy.copy(first.row)  # a copy, because an error names its item
            slot.tokens, slot.truncated, slot.image = first.tokens, first.truncated, first.image
            slot.cached = True
    for slot in slots:
        if slot.row is not None:
            slot.row = finished(
                slot.row, options.dimensions, options.normalize, largest=options.largest
            )


def _first(bad: Sequence[tuple[int, RaylensError]]) -> RaylensError:
    """The first bad item's error, with every bad item in its `items`."""
    first = copy.copy(bad[0][1])
    first.items = tuple(bad)
    return first
