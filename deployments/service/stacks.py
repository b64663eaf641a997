"""Embeds a job's slots in stacks: loads and decodes, or tokenises, then calls the model.

Decides how many items go together; `embedding` handles limits and results.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from deployments.errors import (
    DeadlineExceeded,
    Internal,
    InvalidItem,
    Overloaded,
    RaylensError,
    TextTooLong,
    TextUnsupported,
)
from deployments.items import PathItem, TextItem, UrlItem
from deployments.metrics.declared import IngressMetrics
from deployments.service.cache import Entry, VectorCache
from deployments.service.job import Job, Slot, is_text, too_many_tokens
from deployments.service.loader import ImageLoader
from deployments.service.tasks import all_or_none, in_stacks
from deployments.tracing import StageSpans
from deployments.wire import Pixels, StackVectors, pad_tokens

logger = logging.getLogger("ray.serve")

# Items in one call to the model. A call costs about as much as 0.2 forward passes, so
# larger stacks save little; smaller ones let decoding and the model overlap in large requests.
STACK_ITEMS = 32
# Tokenised at a time, while other requests wait: the worst texts take 4 ms per 1,000 characters.
CHARS_AT_A_TIME = 8192
# How long a job waits for another one with the same item before it embeds the item itself: the
# other one may be waiting for an image from a slow server.
FOLLOW_S = 2.0


class StackEmbedder:
    """Fills the rows of a job's slots with raw vectors, or with the error of a bad item."""

    def __init__(
        self,
        loader: ImageLoader,
        cache: VectorCache,
        *,
        max_text_chars: int,
        metrics: IngressMetrics,
        trace: StageSpans | None = None,
    ) -> None:
        self._loader = loader
        self._cache = cache
        self._stage_seconds = metrics.stage_seconds
        self._lookups = metrics.cache_lookups
        self._trace = trace
        self._max_text_chars = max_text_chars
        # A thread of its own, so that texts need not wait for images to be decoded.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    async def fill(self, job: Job) -> None:
        """Leaves the rows of duplicates empty, and perhaps those of a doomed job."""
        by_url: dict[str, Slot] = {}
        for slot in job.slots:
            if isinstance(slot.item, RaylensError):
                slot.row = slot.item
            elif isinstance(slot.item, UrlItem):  # fetched once, however often it is listed
                first = by_url.setdefault(slot.item.url, slot)
                if first is not slot:
                    self._lookups.add(1, "duplicate")
                    slot.duplicate_of = first
        todo = [slot for slot in job.slots if not slot.is_bad and slot.duplicate_of is None]
        most_bytes = job.model.stack_bytes
        max_images = max(1, min(STACK_ITEMS, most_bytes // job.card.image_bytes))
        max_texts = max(1, min(STACK_ITEMS, most_bytes // job.card.text_bytes))
        try:
            while todo:
                images = [slot for slot in todo if not is_text(slot)]
                texts = [slot for slot in todo if is_text(slot)]
                await all_or_none(
                    [
                        in_stacks(self._embed_images, job, images, max_images),
                        in_stacks(self._embed_texts, job, texts, max_texts),
                    ]
                )
                todo = await self._follow(job)
        finally:
            for slot in job.slots:
                self._give_up(slot)

    async def _follow(self, job: Job) -> list[Slot]:
        """Takes what other jobs have embedded; returns the slots that they failed or were slow on.
        A doomed job does not wait: it only checks which of its items are bad.

        Call it only when this job has nothing left to embed, or two jobs could wait for each other.
        """
        following = {slot: slot.flight for slot in job.slots if slot.flight is not None}
        if following:
            timeout_s = 0 if job.is_doomed else FOLLOW_S
            _, waiting = await asyncio.wait(following.values(), timeout=timeout_s)
            job.impatient = bool(waiting)
        left = []
        for slot, flight in following.items():
            slot.flight = None
            if flight.done() and not flight.cancelled():
                self._lookups.add(1, "shared")
                slot.take(flight.result(), truncate=job.options.truncate)
            else:
                left.append(slot)
        return left

    def _needs_model(self, job: Job, slot: Slot, content: bytes) -> bool:
        """Whether the model has to run for a slot: no earlier slot has this content, it is not in
        the cache, and no other job is embedding it."""
        key = job.card.identity + content
        first = job.first_of.setdefault(key, slot)
        if first is not slot:
            self._lookups.add(1, "duplicate")
            slot.duplicate_of = first
            return False
        entry = self._cache.get(key)
        if entry is not None:
            self._lookups.add(1, "hit")
            slot.take(entry, truncate=job.options.truncate)
            return False
        flight = self._cache.flight(key)
        if flight is not None and not job.impatient:
            slot.flight = flight
            return False
        self._lookups.add(1, "miss")
        if flight is None or not job.is_doomed:  # a doomed job would give up the other job's flight
            slot.key = key
        return True

    def _took(self, stage: str, seconds: float) -> None:
        self._stage_seconds.observe(seconds, stage)
        if self._trace is not None:
            self._trace(stage, seconds)

    def _fill_rows(self, job: Job, slots: Sequence[Slot], made: StackVectors) -> None:
        job.timing.note("queue", made.queue_ms)
        job.timing.note("model", made.model_ms)
        self._stage_seconds.observe(made.queue_ms / 1e3, "queue")  # the model's replica traces them
        self._stage_seconds.observe(made.model_ms / 1e3, "model")
        for slot, vector in zip(slots, made.vectors, strict=True):
            if vector.ndim == 2 and is_text(slot):  # a vector for each token, and then padding
                vector = vector[: slot.tokens]
            slot.row = vector
            if slot.key is not None and np.isfinite(vector).all():
                entry = Entry(vector, slot.tokens, slot.truncated, slot.image)
                self._cache.put(slot.key, entry)
                slot.key = None

    def _fail(self, slot: Slot, error: RaylensError) -> None:
        slot.row = error.bare()
        self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        if slot.key is not None:
            self._cache.give_up(slot.key)
            slot.key = None

    async def _embed_images(self, job: Job, slots: Sequence[Slot]) -> None:
        decoded = await all_or_none([self._pixels_or_none(job, slot) for slot in slots])
        good = {s: p for s, p in zip(slots, decoded, strict=True) if p is not None}
        if good and not job.is_doomed:
            pixels, context = np.stack([*good.values()]), job.context
            made = await job.model.embed(
                pixels, job.card.identity, context.deadline, context.tenant
            )
            self._fill_rows(job, [*good], made)

    async def _pixels_or_none(self, job: Job, slot: Slot) -> Pixels | None:
        """The item's pixels, or None if it is bad or does not need the model."""
        try:
            async with asyncio.timeout_at(job.load_by):
                return await self._pixels(job, slot)
        except RaylensError as error:
            self._fail(slot, error)
        except TimeoutError:
            self._fail(slot, _too_late(is_slow=slot.is_slow))
        except Exception:
            logger.exception("An item failed with an unexpected error.")
            self._fail(slot, Internal("The service failed on this item."))
        return None

    async def _pixels(self, job: Job, slot: Slot) -> Pixels | None:
        item: Any = slot.item
        began = time.perf_counter()
        async with self._loader.loaded(item, job.limits) as (data, digest):
            loaded = time.perf_counter()
            job.timing.note("fetch", (loaded - began) * 1e3)
            if isinstance(item, UrlItem | PathItem):  # others came with the request
                self._took("fetch", loaded - began)
            if not self._needs_model(job, slot, b"image" + digest):
                return None
            decoded = await self._loader.decode(data, job.card.pixels, job.limits)
            if decoded is None:
                slot.is_slow = True
                decoded = await self._loader.decode_slowly(data, job.card.pixels, job.limits)
        pixels, slot.image = decoded
        decode_s = time.perf_counter() - loaded
        job.timing.note("decode", decode_s * 1e3)
        self._took("decode", decode_s)
        return pixels

    async def _embed_texts(self, job: Job, slots: Sequence[Slot]) -> None:
        texts = {s: text for s in slots if (text := self._text_or_none(job, s)) is not None}
        if not texts:
            return
        began = time.perf_counter()
        good: dict[Slot, list[int]] = {}
        for part in _in_parts(texts):
            good |= await self._tokenise(job, part)
        tokenise_s = time.perf_counter() - began
        job.timing.note("decode", tokenise_s * 1e3)
        self._took("tokenise", tokenise_s)
        if good and not job.is_doomed:
            tokens, context = pad_tokens([*good.values()]), job.context
            made = await job.model.embed_text(
                tokens, job.card.identity, context.deadline, context.tenant
            )
            self._fill_rows(job, [*good], made)

    async def _tokenise(self, job: Job, texts: dict[Slot, str]) -> dict[Slot, list[int]]:
        """The token ids of each text, without those that are too long."""
        assert job.tokenizer is not None  # noqa: S101  (`_text_or_none` let only such texts pass)
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, job.tokenizer.encode, list(texts.values())
            )
        except Exception:
            logger.exception("Tokenising failed with an unexpected error.")
            for slot in texts:
                self._fail(slot, Internal("The service failed on this item."))
            return {}
        good = {}
        for slot, (ids, truncated) in zip(texts, encoded, strict=True):
            if truncated and not job.options.truncate:
                self._fail(slot, too_many_tokens(len(ids)))
                continue
            if not ids:  # of an empty text, by a tokenizer that adds nothing
                self._fail(slot, InvalidItem("The model reads no tokens in this text."))
                continue
            good[slot] = ids
            slot.tokens = len(ids)
            slot.truncated |= truncated
        return good

    def _text_or_none(self, job: Job, slot: Slot) -> str | None:
        """The item's text, or None if it is bad or does not need the model."""
        text = slot.item.text if isinstance(slot.item, TextItem) else ""
        if job.card.text is None:
            slot.row = TextUnsupported(
                f"{job.card.id} embeds images only, and this item is a text. Send base64 as "
                '{"base64": "…"} where the endpoint takes objects.'
            )
        elif len(text) > self._max_text_chars and not job.options.truncate:
            slot.row = TextTooLong(
                f"The text is longer than {self._max_text_chars} characters; shorten it, or "
                "let it be truncated."
            )
        else:
            slot.truncated = len(text) > self._max_text_chars
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            if self._needs_model(job, slot, b"text" + digest):
                return text[: self._max_text_chars]
        return None


def _too_late(*, is_slow: bool) -> RaylensError:
    if is_slow:
        return Overloaded(
            "The image takes long to decode, as do others that came before it; retry after a "
            "pause, or send it smaller.",
            retry_after_s=10,
        )
    return DeadlineExceeded("There was no time left for this item; send fewer items or retry.")


def _in_parts(texts: dict[Slot, str]) -> Iterator[dict[Slot, str]]:
    """`texts` in parts of about CHARS_AT_A_TIME characters, at least one text each."""
    part: dict[Slot, str] = {}
    chars = 0
    for slot, text in texts.items():
        part[slot] = text
        chars += len(text)
        if chars >= CHARS_AT_A_TIME:
            yield part
            part, chars = {}, 0
    if part:
        yield part
