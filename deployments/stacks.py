"""A request's items in stacks: loaded and decoded, or tokenised, and embedded by the model.

Knows what one item costs and how many travel together; options and answers are `service.py`'s.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from deployments.cache import Entry, VectorCache
from deployments.card import Pixels
from deployments.errors import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    RaylensError,
    TextTooLong,
    TextUnsupported,
    Unavailable,
)
from deployments.gate import Answer
from deployments.items import ImageItem, TextItem
from deployments.loader import ImageLoader
from deployments.request import Request, too_many_tokens
from deployments.tokenizer import stack

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

# Items that cross the handle together. One call costs about as much as 0.2 forward passes, so
# larger stacks save little; smaller ones let decoding and the model overlap in large requests.
STACK_ITEMS = 32
# Tokenised in one go, while other requests wait: the worst of texts take 4 ms per 1,000 characters.
CHARS_AT_A_TIME = 8192
# So long a request waits for another one that has the same item, and then embeds it itself: the
# other one's may be waiting for a slow server's image.
FOLLOW_S = 2.0
# Stacks of one request at a time: one in the model, one being decoded.
STACKS_IN_FLIGHT = 2


class Stacks:
    """Fills a request's rows with raw vectors, each bad item's with its error."""

    def __init__(self, loader: ImageLoader, cache: VectorCache, *, max_text_chars: int) -> None:
        self._loader = loader
        self._cache = cache
        self._max_text_chars = max_text_chars
        # A thread of its own: a text does not wait until the images before it are decoded.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    async def embed(self, request: Request) -> None:
        """Rows of duplicates stay empty, and in a doomed request others may as well."""
        images: list[int] = []
        texts: list[int] = []
        for index, item in enumerate(request.items):
            if isinstance(item, RaylensError):
                request.rows[index] = item
            else:
                (texts if isinstance(item, TextItem) else images).append(index)
        height, width = request.card.pixels.size
        fitting = request.model.stack_bytes // (
            height * width * 3 * request.card.pixels.dtype.itemsize
        )
        fitting = max(1, min(STACK_ITEMS, fitting))
        try:
            while images or texts:
                await all_or_none(
                    [
                        in_stacks(self._embed_images, request, images, fitting),
                        in_stacks(self._embed_texts, request, texts, STACK_ITEMS),
                    ]
                )
                left = await self._follow(request)
                images, texts = ([i for i in part if i in left] for part in (images, texts))
        finally:
            for key in request.making.values():
                self._cache.give_up(key)

    async def _follow(self, request: Request) -> set[int]:
        """Takes what other requests have embedded; the items of those that failed are left.

        Only once this request has nothing to embed itself, or two could wait for each other.
        """
        if request.following and not request.doomed:
            _, waiting = await asyncio.wait(request.following.values(), timeout=FOLLOW_S)
            request.impatient = bool(waiting)
        left = set()
        for index, flight in request.following.items():
            if flight.done() and not flight.cancelled():
                request.take(index, flight.result())
                request.cached.add(index)
            elif not request.doomed:
                left.add(index)
        request.following.clear()
        return left

    def _is_to_be_made(self, request: Request, index: int, content: bytes) -> bool:
        """Whether the model has to run for an item: no other item had this content before, it is
        not in the cache, and no other request is at it."""
        key = request.card.identity + content
        first = request.first_of.setdefault(key, index)
        if first != index:
            request.duplicate_of[index] = first
            return False
        entry = self._cache.get(key)
        if entry is not None:
            request.take(index, entry)
            request.cached.add(index)
            return False
        flight = self._cache.flight(key)
        if flight is not None and not request.impatient:
            request.following[index] = flight
            return False
        request.making[index] = key
        return True

    def _take(self, request: Request, indices: Sequence[int], answer: Answer) -> None:
        request.timing.note("queue", answer.queue_ms)
        request.timing.note("model", answer.model_ms)
        if answer.identity != request.card.identity:
            raise Unavailable("The model is being replaced by another; retry.", retry_after_s=1)
        for index, vector in zip(indices, answer.vectors, strict=True):
            request.rows[index] = vector
            if np.isfinite(vector).all():
                entry = Entry(vector, request.tokens.get(index, 0), index in request.truncated)
                self._cache.put(request.making.pop(index), entry)

    def _fail(self, request: Request, index: int, error: RaylensError) -> None:
        request.rows[index] = error.bare()
        key = request.making.pop(index, None)
        if key is not None:
            self._cache.give_up(key)

    async def _embed_images(self, request: Request, indices: Sequence[int]) -> None:
        pixels = await all_or_none([self._pixels_or_none(request, i) for i in indices])
        good = [(i, p) for i, p in zip(indices, pixels, strict=True) if p is not None]
        if good and not request.doomed:
            stacked = np.stack([p for _, p in good])
            answer = await request.model.embed(stacked, request.deadline, request.caller)
            self._take(request, [i for i, _ in good], answer)

    async def _pixels_or_none(self, request: Request, index: int) -> Pixels | None:
        """The item's pixels, or None where its row needs no model: an error or a duplicate."""
        item: Any = request.items[index]
        try:
            async with asyncio.timeout_at(request.load_by):
                return await self._pixels(request, index, item)
        except RaylensError as error:
            self._fail(request, index, error)
        except TimeoutError:
            self._fail(request, index, _too_late(is_slow=index in request.slow))
        except Exception:
            logger.exception("An item failed in a way that no error describes.")
            self._fail(request, index, Internal("The service failed on this item."))
        return None

    async def _pixels(self, request: Request, index: int, item: ImageItem) -> Pixels | None:
        began = time.perf_counter()
        async with self._loader.loaded(item, request.share) as (data, digest):
            loaded = time.perf_counter()
            request.timing.note("fetch", (loaded - began) * 1e3)
            if not self._is_to_be_made(request, index, b"image" + digest):
                return None
            spec, share = request.card.pixels, request.share
            pixels = await self._loader.decode(data, spec, share)
            if pixels is None:
                request.slow.add(index)
                pixels = await self._loader.decode_slowly(data, spec, share)
        request.timing.note("decode", (time.perf_counter() - loaded) * 1e3)
        return pixels

    async def _embed_texts(self, request: Request, indices: Sequence[int]) -> None:
        texts = {i: text for i in indices if (text := self._text_or_none(request, i)) is not None}
        if not texts:
            return
        began = time.perf_counter()
        good: dict[int, list[int]] = {}
        for part in _in_parts(texts):
            good |= await self._tokenise(request, part)
        request.timing.note("decode", (time.perf_counter() - began) * 1e3)
        if good and not request.doomed:
            tokens = stack([*good.values()])
            answer = await request.model.embed_text(tokens, request.deadline, request.caller)
            self._take(request, [*good], answer)

    async def _tokenise(self, request: Request, texts: dict[int, str]) -> dict[int, list[int]]:
        """The ids of each text that the model may be given."""
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, request.model.tokenizer.encode, list(texts.values())
            )
        except Exception:
            logger.exception("A text failed in a way that no error describes.")
            for index in texts:
                self._fail(request, index, Internal("The service failed on this item."))
            return {}
        good = {}
        for index, (ids, truncated) in zip(texts, encoded, strict=True):
            if truncated and not request.truncate:
                self._fail(request, index, too_many_tokens(len(ids)))
                continue
            good[index] = ids
            request.tokens[index] = len(ids)
            if truncated:
                request.truncated.add(index)
        return good

    def _text_or_none(self, request: Request, index: int) -> str | None:
        """The item's text, or None where its row needs no model: an error or a duplicate."""
        item: Any = request.items[index]
        if request.card.text is None:
            request.rows[index] = TextUnsupported(
                f"{request.card.id} embeds images only. A bare string is text unless it is an "
                'http(s) URL or a data URI; send plain base64 as {"base64": "…"}.'
            )
        elif len(item.text) > self._max_text_chars:
            request.rows[index] = TextTooLong(
                f"The text is longer than {self._max_text_chars} characters; shorten it."
            )
        else:
            digest = hashlib.sha256(item.text.encode("utf-8", "surrogatepass")).digest()
            if self._is_to_be_made(request, index, b"text" + digest):
                return str(item.text)
        return None


def _too_late(*, is_slow: bool) -> RaylensError:
    if is_slow:
        return Overloaded(
            "The image takes long to decode, as do others that came before it; retry after a "
            "pause, or send it smaller.",
            retry_after_s=10,
        )
    return DeadlineExceeded("There was no time left for this item; send fewer items or retry.")


def _in_parts(texts: dict[int, str]) -> Iterator[dict[int, str]]:
    """`texts` again, in parts of about CHARS_AT_A_TIME characters and at least one text."""
    part: dict[int, str] = {}
    chars = 0
    for index, text in texts.items():
        part[index] = text
        chars += len(text)
        if chars >= CHARS_AT_A_TIME:
            yield part
            part, chars = {}, 0
    if part:
        yield part


async def in_stacks(
    embed: Callable[[Request, Sequence[int]], Awaitable[None]],
    request: Request,
    indices: Sequence[int],
    size: int,
) -> None:
    """Has `embed` fill the rows at `indices`, at most `size` of them at a time."""
    turn = asyncio.Semaphore(STACKS_IN_FLIGHT)

    async def embed_in_turn(part: Sequence[int]) -> None:
        async with turn:
            await embed(request, part)

    starts = range(0, len(indices), size)
    await all_or_none([embed_in_turn(indices[start : start + size]) for start in starts])


async def all_or_none(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; when one raises, the others are cancelled and it is re-raised."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
