"""A request's items in stacks: loaded and decoded, or tokenised, and embedded by the model.

Knows what one item costs and how many travel together; options and answers are `service.py`'s.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from deployments.card import ModelCard, Pixels, Tokens
from deployments.engine import Answer
from deployments.errors import Internal, RaylensError, TextTooLong, TextUnsupported
from deployments.items import ImageItem, Item, TextItem
from deployments.loader import ImageLoader
from deployments.tokenizer import TextTokenizer, stack
from deployments.vectors import Vector

logger = logging.getLogger("ray.serve")

OnError = Literal["fail", "report"]
Stage = Literal["fetch", "decode", "queue", "model"]
T = TypeVar("T")

# Items that cross the handle together. One call costs about as much as 0.2 forward passes, so
# larger stacks save little; smaller ones let decoding and the model overlap in large requests.
STACK_ITEMS = 32
# Tokenised in one go, while other requests wait: the worst of texts take 4 ms per 1,000 characters.
CHARS_AT_A_TIME = 8192
# Stacks of one request at a time: one in the model, one being decoded.
STACKS_IN_FLIGHT = 2


class Model(Protocol):
    """A model deployment as the service sees it."""

    names: frozenset[str]
    """Its id and its aliases."""
    stack_bytes: int
    """The largest stack of pixels that fits into one call."""

    @property
    def is_loaded(self) -> bool:
        """Whether there is a card."""

    @property
    def card(self) -> ModelCard:
        """Raises Unavailable while the model has not been loaded yet."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of a model whose card has a text tower. Raises Unavailable like `card`."""

    async def embed(self, stack: Pixels, deadline: float) -> Answer:
        """(N, H, W, 3) in the card's geometry to N raw vectors, before `deadline` on the loop's
        clock. Raises Unavailable, Overloaded, DeadlineExceeded or Internal.
        """

    async def embed_text(self, stack: Tokens, deadline: float) -> Answer:
        """(N, L) token ids to N raw vectors; otherwise like `embed`."""

    async def ready(self) -> ModelCard:
        """Has the model answer once, now. Raises Unavailable with the reason."""


@dataclass(slots=True)
class Timing:
    """Milliseconds by stage. Items overlap, so a stage is as long as its slowest item."""

    fetch: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    model: float = 0.0

    def note(self, stage: Stage, ms: float) -> None:
        setattr(self, stage, max(getattr(self, stage), ms))


@dataclass(slots=True)
class Request:
    """What one request asks for, and what is known of each of its items so far."""

    items: Sequence[Item | RaylensError]
    model: Model
    card: ModelCard
    on_error: OnError
    truncate: bool
    deadline: float
    rows: list[Vector | RaylensError | None]
    tokens: dict[int, int] = field(default_factory=dict)
    """How many tokens of each text the model reads."""
    truncated: set[int] = field(default_factory=set)
    first_of: dict[bytes, int] = field(default_factory=dict)
    """The content hash of each distinct item, and which one brought it first."""
    duplicate_of: dict[int, int] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)

    @property
    def doomed(self) -> bool:
        """Whether it fails anyway, so that the model need not run for it."""
        return self.on_error == "fail" and any(isinstance(r, RaylensError) for r in self.rows)

    def is_new(self, index: int, key: bytes) -> bool:
        """Whether no item had this content before; notes it either way."""
        first = self.first_of.setdefault(key, index)
        if first != index:
            self.duplicate_of[index] = first
        return first == index

    def take(self, indices: Sequence[int], answer: Answer) -> None:
        self.timing.note("queue", answer.queue_ms)
        self.timing.note("model", answer.model_ms)
        for index, vector in zip(indices, answer.vectors, strict=True):
            self.rows[index] = vector


class Stacks:
    """Fills a request's rows with raw vectors, each bad item's with its error."""

    def __init__(self, loader: ImageLoader, *, max_text_chars: int) -> None:
        self._loader = loader
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
        fitting = request.model.stack_bytes // (height * width * 3 * request.card.pixels.itemsize)
        await all_or_none(
            [
                in_stacks(self._embed_images, request, images, max(1, min(STACK_ITEMS, fitting))),
                in_stacks(self._embed_texts, request, texts, STACK_ITEMS),
            ]
        )

    async def _embed_images(self, request: Request, indices: Sequence[int]) -> None:
        pixels = await all_or_none([self._pixels_or_none(request, i) for i in indices])
        good = [(i, p) for i, p in zip(indices, pixels, strict=True) if p is not None]
        if good and not request.doomed:
            stacked = np.stack([p for _, p in good])
            answer = await request.model.embed(stacked, request.deadline)
            request.take([i for i, _ in good], answer)

    async def _pixels_or_none(self, request: Request, index: int) -> Pixels | None:
        """The item's pixels, or None where its row needs no model: an error or a duplicate."""
        item: Any = request.items[index]
        try:
            return await self._pixels(request, index, item)
        except RaylensError as error:
            request.rows[index] = error
        except Exception:
            logger.exception("An item failed in a way that no error describes.")
            request.rows[index] = Internal("The service failed on this item.")
        return None

    async def _pixels(self, request: Request, index: int, item: ImageItem) -> Pixels | None:
        began = time.perf_counter()
        data, digest = await self._loader.load(item)
        loaded = time.perf_counter()
        request.timing.note("fetch", (loaded - began) * 1e3)
        if not request.is_new(index, b"image" + digest):
            return None
        pixels = await self._loader.decode(data, request.card.pixels)
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
            answer = await request.model.embed_text(stack([*good.values()]), request.deadline)
            request.take([*good], answer)

    async def _tokenise(self, request: Request, texts: dict[int, str]) -> dict[int, list[int]]:
        """The ids of each text that the model may be given."""
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, request.model.tokenizer.encode, list(texts.values())
            )
        except Exception:
            logger.exception("A text failed in a way that no error describes.")
            for index in texts:
                request.rows[index] = Internal("The service failed on this item.")
            return {}
        good = {}
        for index, (ids, truncated) in zip(texts, encoded, strict=True):
            if truncated and not request.truncate:
                request.rows[index] = TextTooLong(
                    f"The text is longer than the {len(ids)} tokens that the model reads; shorten "
                    "it or leave truncate true."
                )
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
            if request.is_new(index, b"text" + digest):
                return str(item.text)
        return None


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
