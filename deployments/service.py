"""One request's way: items -> pixels -> vectors. Knows neither HTTP nor Ray."""

import asyncio
import copy
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from deployments.card import ModelCard
from deployments.engine import Answer, Pixels
from deployments.errors import (
    BadRequest,
    DeadlineExceeded,
    DimensionsUnsupported,
    Internal,
    Overloaded,
    RaylensError,
    TooManyItems,
)
from deployments.items import Item
from deployments.loader import ImageLoader
from deployments.settings import Settings
from deployments.vectors import Vector, finished

logger = logging.getLogger("ray.serve")

OnError = Literal["fail", "report"]
T = TypeVar("T")

# Images that cross the handle together. One call costs about as much as 0.2 forward passes, so
# larger stacks save little; smaller ones let decoding and the model overlap in large requests.
STACK_IMAGES = 32
# Stacks of one request at a time: one in the model, one being decoded.
STACKS_IN_FLIGHT = 2


class Model(Protocol):
    """The model deployment as the service sees it."""

    stack_bytes: int
    """The largest stack that fits into one call."""

    @property
    def card(self) -> ModelCard:
        """Raises Unavailable while the model has not been loaded yet."""

    async def embed(self, stack: Pixels, deadline: float) -> Answer:
        """uint8 (N, H, W, 3) to N raw vectors, before `deadline` on the loop's clock.

        Raises Unavailable, Overloaded, DeadlineExceeded or Internal.
        """

    async def ready(self) -> ModelCard:
        """Has the model answer once, now. Raises Unavailable with the reason."""


@dataclass(slots=True)
class Timing:
    """Milliseconds by stage. Items overlap, so a stage is as long as its slowest item."""

    fetch: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    model: float = 0.0

    def note(self, stage: Literal["fetch", "decode", "queue", "model"], ms: float) -> None:
        setattr(self, stage, max(getattr(self, stage), ms))


@dataclass(slots=True)
class Embedded:
    """A request's answer: for each item, in order, its (D,) float32 vector or its error."""

    rows: list[Vector | RaylensError]
    cached: int
    """Items answered without the model: duplicates of an earlier item of the request."""
    timing: Timing


@dataclass(slots=True)
class _Request:
    items: Sequence[Item | RaylensError]
    on_error: OnError
    deadline: float
    rows: list[Vector | RaylensError | None]
    first_of: dict[bytes, int] = field(default_factory=dict)
    """The content hash of each distinct image, and which item brought it first."""
    duplicate_of: dict[int, int] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)


class EmbeddingService:
    """Turns items into vectors, with each bad item kept to itself."""

    def __init__(
        self,
        settings: Settings,
        *,
        model: Model,
        loader: ImageLoader,
        count: Callable[[str, int], None] = lambda outcome, number: None,
    ) -> None:
        """`count` is told how many items ended with which outcome, for the metrics."""
        self.settings = settings
        self.model = model
        self._loader = loader
        self._count = count
        self._pending = 0

    @asynccontextmanager
    async def time_limit(self) -> AsyncIterator[float]:
        """Ends what runs inside when a request's time is up, with DeadlineExceeded.

        Yields the deadline for the model's answer, on the loop's clock: a little earlier, so
        that a model that does not answer is told from a request that asks for too much.
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

    async def embed(
        self,
        items: Sequence[Item | RaylensError],
        *,
        deadline: float,
        params: Sequence[str] | None = None,
        on_error: OnError = "fail",
        dimensions: int | None = None,
        normalize: bool = True,
    ) -> Embedded:
        """The vectors of `items`; an item that could not even be parsed comes as its error.

        `params` names each item in errors (default `input[0]`, `input[1]`, …). Under
        `on_error="fail"` the error of the lowest bad item is raised, with all bad items in its
        `items`; under "report" errors stand in their rows.
        """
        if len(items) > self.settings.limits.max_items:
            raise TooManyItems(
                f"{len(items)} items are more than the {self.settings.limits.max_items} that one "
                "request may have; split the request."
            )
        # A handle's callers are not checked elsewhere.
        if on_error not in ("fail", "report"):
            raise BadRequest('on_error must be "fail" or "report".', param="on_error")
        if not isinstance(normalize, bool):
            raise BadRequest("normalize must be true or false.", param="normalize")
        card = self.model.card
        self._check_dimensions(dimensions, card)
        request = _Request(items, on_error, deadline, [None] * len(items))
        try:
            with self._admitted(len(items)):
                await self._fill(request, card)
        except RaylensError as error:
            self._count(error.code, len(items))
            raise
        for index, first in request.duplicate_of.items():
            request.rows[index] = copy.copy(request.rows[first])
        for index, row in enumerate(request.rows):
            if row is not None:
                row = finished(row, dimensions, normalize)
            if isinstance(row, RaylensError):
                row.param = params[index] if params else f"input[{index}]"
                self._count(row.code, 1)
            request.rows[index] = row
        if on_error == "fail":
            raise_first(request.rows)
        # Only a request that fails anyway skips the model and leaves rows empty.
        rows = [row for row in request.rows if row is not None]
        cached = sum(not isinstance(rows[i], RaylensError) for i in request.duplicate_of)
        self._count("ok", sum(not isinstance(row, RaylensError) for row in rows))
        return Embedded(rows, cached, request.timing)

    def _check_dimensions(self, dimensions: int | None, card: ModelCard) -> None:
        if dimensions is None:
            return
        whole = isinstance(dimensions, int | np.integer) and not isinstance(dimensions, bool)
        if not whole or dimensions < 1:
            raise BadRequest("dimensions must be a whole number from 1 on.", param="dimensions")
        if dimensions == card.dimensions:
            return
        if not self.settings.model.matryoshka:
            raise DimensionsUnsupported(
                f"The vectors of {card.id} may not be shortened; leave dimensions out or set it "
                f"to {card.dimensions}.",
                param="dimensions",
            )
        if dimensions > card.dimensions:
            raise DimensionsUnsupported(
                f"dimensions is at most {card.dimensions} for {card.id}.", param="dimensions"
            )

    @contextmanager
    def _admitted(self, number: int) -> Iterator[None]:
        if self._pending and self._pending + number > self.settings.limits.max_queued_items:
            raise Overloaded("Too much is waiting already; retry after a pause.", retry_after_s=1)
        self._pending += number
        try:
            yield
        finally:
            self._pending -= number

    async def _fill(self, request: _Request, card: ModelCard) -> None:
        height, width = card.pixels.size
        size = max(1, min(STACK_IMAGES, self.model.stack_bytes // (height * width * 3)))
        turn = asyncio.Semaphore(STACKS_IN_FLIGHT)

        async def embed_stack(indices: range) -> None:
            async with turn:
                await self._embed_stack(request, indices, card)

        await all_or_none(
            [
                embed_stack(range(start, min(start + size, len(request.items))))
                for start in range(0, len(request.items), size)
            ]
        )

    async def _embed_stack(self, request: _Request, indices: range, card: ModelCard) -> None:
        pixels = await all_or_none([self._pixels_or_error(request, i, card) for i in indices])
        good = [(i, p) for i, p in zip(indices, pixels, strict=True) if p is not None]
        doomed = request.on_error == "fail" and any(
            isinstance(row, RaylensError) for row in request.rows
        )
        if not good or doomed:
            return
        answer = await self.model.embed(np.stack([p for _, p in good]), request.deadline)
        request.timing.note("queue", answer.queue_ms)
        request.timing.note("model", answer.model_ms)
        for (i, _), vector in zip(good, answer.vectors, strict=True):
            request.rows[i] = vector

    async def _pixels_or_error(
        self, request: _Request, index: int, card: ModelCard
    ) -> Pixels | None:
        """The item's pixels, or None where its row needs no model: an error or a duplicate."""
        try:
            return await self._pixels(request, index, card)
        except RaylensError as error:
            request.rows[index] = error
        except Exception:
            logger.exception("An item failed in a way that no error describes.")
            request.rows[index] = Internal("The service failed on this item.")
        return None

    async def _pixels(self, request: _Request, index: int, card: ModelCard) -> Pixels | None:
        item = request.items[index]
        if isinstance(item, RaylensError):
            raise item
        began = time.perf_counter()
        data, key = await self._loader.load(item)
        loaded = time.perf_counter()
        request.timing.note("fetch", (loaded - began) * 1e3)
        first = request.first_of.setdefault(key, index)
        if first != index:
            request.duplicate_of[index] = first
            return None
        pixels = await self._loader.decode(data, card)
        request.timing.note("decode", (time.perf_counter() - loaded) * 1e3)
        return pixels


async def all_or_none(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; when one raises, the others are cancelled and it is re-raised."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def raise_first(rows: Sequence[Vector | RaylensError | None]) -> None:
    """Raises the error of the lowest bad row, naming every bad row in its `items`."""
    bad = tuple((i, row) for i, row in enumerate(rows) if isinstance(row, RaylensError))
    if bad:
        first = copy.copy(bad[0][1])
        first.items = bad
        raise first
