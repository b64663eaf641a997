"""One request's way: items to vectors, with its options, limits and errors. No HTTP, no Ray."""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np

from deployments.cache import VectorCache
from deployments.card import ModelCard
from deployments.errors import (
    BadRequest,
    DeadlineExceeded,
    DimensionsUnsupported,
    ModelNotFound,
    Overloaded,
    RateLimited,
    RaylensError,
    TooManyItems,
)
from deployments.items import Item, TextItem
from deployments.loader import ImageLoader, Share
from deployments.request import Model, OnError, Request, Timing
from deployments.settings import Settings
from deployments.stacks import Stacks
from deployments.vectors import Vector, finished

# Of a request's time, what the model gets at the end for what has been decoded by then.
MODEL_PART = 0.1


@dataclass(slots=True)
class Embedded:
    """A request's answer: for each item, in order, its (D,) float32 vector or its error."""

    rows: list[Vector | RaylensError]
    texts: int
    """How many of the vectors are of texts."""
    tokens: int
    """What the model read of the texts."""
    truncated: set[int]
    """The texts that are longer than what the model read of them."""
    cached: int
    """Items answered without the model: in the cache, in another request at the same time, or
    duplicates of an earlier item."""
    timing: Timing


class EmbeddingService:
    """Turns items into vectors, with each bad item kept to itself."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: Sequence[Model],
        loader: ImageLoader,
        count: Callable[[str, int], None] = lambda outcome, number: None,
    ) -> None:
        """The first of `models` answers requests that name none. `count` is told how many items
        ended with which outcome, for the metrics.
        """
        self.settings = settings
        self.models = models
        cache = VectorCache(settings.cache.max_bytes)
        self._stacks = Stacks(loader, cache, max_text_chars=settings.limits.max_text_chars)
        self._loader = loader
        self._count = count
        self._pending = 0
        self._pending_of: Counter[str] = Counter()
        self._shares: dict[str, Share] = {}  # as many as there are keys

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

    def model(self, name: str | None) -> Model:
        """The model that a request means by `name`, an id or an alias; None is the first one.

        Raises ModelNotFound.
        """
        for model in self.models:
            if name is None or name in model.names:
                return model
        raise ModelNotFound(
            "This service does not have that model; GET /v1/models lists what it has.",
            param="model",
        )

    async def embed(
        self,
        items: Sequence[Item | RaylensError],
        *,
        model: Model,
        deadline: float,
        params: Sequence[str] | None = None,
        on_error: OnError = "fail",
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        caller: str | None = None,
    ) -> Embedded:
        """The vectors of `items`; an item that could not even be parsed comes as its error.

        `caller` is who asks, if that is known: nobody gets more than half of the queue.
        `params` names each item in errors (default `input[0]`, `input[1]`, …). Under
        `on_error="fail"` the error of the lowest bad item is raised, with all bad items in its
        `items`; under "report" errors stand in their rows.
        """
        if len(items) > self.settings.limits.max_items:
            param = params[0].partition("[")[0] if params else "input"
            raise too_many_items(len(items), self.settings.limits.max_items, param=param)
        _check_options(on_error=on_error, normalize=normalize, truncate=truncate)
        card = model.card
        _check_dimensions(dimensions, card)
        rows: list[Vector | RaylensError | None] = [None] * len(items)
        share = self._share(caller)
        load_by = deadline - MODEL_PART * self.settings.limits.request_timeout_s
        request = Request(
            items, model, card, on_error, truncate, load_by, deadline, rows, share, caller
        )
        try:
            # Those that are errors already wait for nothing.
            number = sum(not isinstance(item, RaylensError) for item in items)
            with self._admitted(number, caller):
                await self._stacks.embed(request)
        except RaylensError as error:
            self._count(error.code, len(items))
            raise
        for index, first in request.duplicate_of.items():
            rows[index] = copy.copy(rows[first])
            request.tokens[index] = request.tokens.get(first, 0)
            if first in request.truncated:
                request.truncated.add(index)
        for index, row in enumerate(rows):
            if row is not None:
                row = finished(row, dimensions, normalize)
            if isinstance(row, RaylensError):
                row.param = params[index] if params else f"input[{index}]"
                self._count(row.code, 1)
            rows[index] = row
        if on_error == "fail":
            raise_first(rows)
        # Only a request that fails anyway skips the model and leaves rows empty.
        answered = [row for row in rows if row is not None]
        good = {i for i, row in enumerate(answered) if not isinstance(row, RaylensError)}
        self._count("ok", len(good))
        return Embedded(
            answered,
            texts=sum(isinstance(items[i], TextItem) for i in good),
            tokens=sum(request.tokens.values()),
            truncated=request.truncated,
            cached=len(good & (request.duplicate_of.keys() | request.cached)),
            timing=request.timing,
        )

    def _share(self, caller: str | None) -> Share:
        """That of the request, or of all requests of a caller who is known."""
        if caller is None:
            return self._loader.share()
        if caller not in self._shares:
            self._shares[caller] = self._loader.share()
        return self._shares[caller]

    @contextmanager
    def _admitted(self, number: int, caller: str | None) -> Iterator[None]:
        most = self.settings.limits.max_queued_items
        if self._pending and self._pending + number > most:
            raise Overloaded("Too much is waiting already; retry after a pause.", retry_after_s=1)
        if caller is not None:
            # Half of it is left to others, so that no key can keep them out.
            own = self._pending_of[caller]
            if own and own + number > most // 2:
                raise RateLimited(
                    "Too many items of this key are waiting already; retry after a pause.",
                    retry_after_s=1,
                )
            self._pending_of[caller] += number
        self._pending += number
        try:
            yield
        finally:
            self._pending -= number
            if caller is not None:
                self._pending_of[caller] -= number


def too_many_items(number: int, most: int, *, param: str) -> TooManyItems:
    return TooManyItems(
        f"{number} items are more than the {most} that one request may have; split the request.",
        param=param,
    )


def _check_options(*, on_error: str, normalize: bool, truncate: bool) -> None:
    """A handle's callers are not checked elsewhere. Raises BadRequest."""
    if on_error not in ("fail", "report"):
        raise BadRequest('on_error must be "fail" or "report".', param="on_error")
    for param, value in (("normalize", normalize), ("truncate", truncate)):
        if not isinstance(value, bool):
            raise BadRequest(f"{param} must be true or false.", param=param)


def _check_dimensions(dimensions: int | None, card: ModelCard) -> None:
    if dimensions is None:
        return
    whole = isinstance(dimensions, int | np.integer) and not isinstance(dimensions, bool)
    if not whole or dimensions < 1:
        raise BadRequest("dimensions must be a whole number from 1 on.", param="dimensions")
    if dimensions == card.dimensions:
        return
    if not card.matryoshka:
        raise DimensionsUnsupported(
            f"The vectors of {card.id} may not be shortened; leave dimensions out or set it "
            f"to {card.dimensions}.",
            param="dimensions",
        )
    if dimensions > card.dimensions:
        raise DimensionsUnsupported(
            f"dimensions is at most {card.dimensions} for {card.id}.", param="dimensions"
        )


def raise_first(rows: Sequence[Vector | RaylensError | None]) -> None:
    """Raises the error of the lowest bad row, naming every bad row in its `items`."""
    bad = tuple((i, row) for i, row in enumerate(rows) if isinstance(row, RaylensError))
    if bad:
        first = copy.copy(bad[0][1])
        first.items = bad
        raise first
