"""Sends a stream of items in batches, several at a time, and keeps their order."""

import asyncio
import copy
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from raylens.client.batches import MOST_BYTES, Batches, Window
from raylens.client.errors import ApiError
from raylens.client.items import Item, SentItem, sent, weight
from raylens.client.retries import with_retries

Failure = ApiError | OSError | ValueError | TypeError
"""Why an item has no vector: the service refused it, or it could not be read or sent."""

Errors = Literal["raise", "return"]
Send = Callable[[Sequence[SentItem]], Awaitable[Sequence[Any]]]


_INTERNAL = (500, 502, 504)  # a request that failed, where the service as such works
_TOO_LARGE = 413  # for the service, or for a proxy in front of it


class _Prepared(NamedTuple):
    """A batch's items that can be sent, with their places, and the failures of the others."""

    items: list[SentItem]
    places: list[int]
    failures: dict[int, Failure]


class Pipeline:
    """One call's way to the service, within the service's `limits`."""

    def __init__(
        self,
        send: Send,
        *,
        errors: Errors,
        limits: Mapping[str, int],
        max_concurrency: int,
        retries: int,
    ) -> None:
        """`send` makes one request, and returns as many results as it got items."""
        self._request = send
        self._errors = errors
        self._limits = limits
        self._retries = retries
        self._window = Window(max_concurrency=max_concurrency)

    async def run(self, items: Iterable[Item]) -> AsyncGenerator[list[Any], None]:
        """For each item its result, or its failure under "return": a batch at a time, in order.

        An error, or the end of the generator, cancels what is under way.
        """
        # Base64 takes a third more, and the rest of a request a little.
        most_bytes = min(MOST_BYTES, int(0.7 * self._limits["max_body_bytes"]))
        batches = Batches(iter(items), weight, most_bytes=most_bytes)
        running: deque[asyncio.Task[list[Any]]] = deque()
        first, has_more = 0, True
        try:
            while True:
                while has_more and len(running) < self._window.concurrency:
                    most = min(self._window.batch_size, self._limits["max_items"])
                    # In a thread, because a generator and files may take long.
                    batch = await asyncio.to_thread(batches.next, most)
                    has_more = bool(batch)
                    if batch:
                        running.append(asyncio.create_task(self._send(batch, first)))
                        first += len(batch)
                if not running:
                    return
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _send(self, batch: Sequence[Item], first: int) -> list[Any]:
        """One batch, whose first item has the index `first` in the whole call."""
        prepared = await asyncio.to_thread(self._prepared, batch, first)
        results: list[Any] = [prepared.failures.get(place) for place in range(len(batch))]
        if not prepared.items:
            return results

        async def timed() -> Sequence[Any]:
            began = time.monotonic()
            answers = await self._request(prepared.items)
            self._window.answered(time.monotonic() - began)
            return answers

        try:
            answers = await with_retries(timed, retries=self._retries, refused=self._window.refused)
        except ApiError as error:
            is_too_large = error.status == _TOO_LARGE and not error.items
            can_raise = self._errors == "raise" and not (is_too_large and len(batch) > 1)
            if can_raise or not (is_too_large or error.status in _INTERNAL):
                raise error.moved(first) from None
            if len(batch) == 1:
                return [error]
            if is_too_large:
                self._window.refused()
            # One item may have been too much for the service; the others must not suffer.
            half = len(batch) // 2
            return [
                *await self._send(batch[:half], first),
                *await self._send(batch[half:], first + half),
            ]
        for place, answer in zip(prepared.places, answers, strict=True):
            results[place] = answer
        return results

    def _prepared(self, batch: Sequence[Item], first: int) -> _Prepared:
        prepared = _Prepared([], [], {})
        for place, item in enumerate(batch):
            try:
                ready = sent(item, max_bytes=self._limits["max_image_bytes"])
            except (ApiError, OSError, ValueError, TypeError) as error:
                if self._errors == "raise":
                    raise _of_item(error, first + place) from None
                prepared.failures[place] = error.with_traceback(None)
            else:
                prepared.items.append(ready)
                prepared.places.append(place)
        return prepared


def _of_item(error: Failure, number: int) -> Failure:
    """The same error, which says which item of the call it is about."""
    if isinstance(error, ApiError):
        error.param, error.items = f"input[{number}]", {number: copy.copy(error)}
    else:
        error.add_note(f"item {number}")
    return error
