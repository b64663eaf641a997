"""One request on its way: its options, its model, and what is known of each item so far."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from deployments.cache import Entry
from deployments.card import ModelCard, Pixels, Tokens
from deployments.errors import RaylensError, TextTooLong
from deployments.gate import Answer
from deployments.items import Item, TextItem
from deployments.loader import Share
from deployments.tokenizer import TextTokenizer
from deployments.vectors import Vector

OnError = Literal["fail", "report"]
Stage = Literal["fetch", "decode", "queue", "model"]


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

    async def embed(self, stack: Pixels, deadline: float, caller: str | None = None) -> Answer:
        """(N, H, W, 3) in the card's geometry to N raw vectors, before `deadline` on the loop's
        clock. The stacks of one `caller` wait for each other, and not others' for them.

        Raises Unavailable, Overloaded, DeadlineExceeded or Internal.
        """

    async def embed_text(self, stack: Tokens, deadline: float, caller: str | None = None) -> Answer:
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
    load_by: float
    """When, on the loop's clock, an image that is not ready for the model fails, so that the model
    can still answer for the others."""
    deadline: float
    """When, on the loop's clock, the model has to have answered."""
    rows: list[Vector | RaylensError | None]
    share: Share
    caller: str | None
    """Who asks, if that is known."""
    tokens: dict[int, int] = field(default_factory=dict)
    """How many tokens of each text the model reads."""
    truncated: set[int] = field(default_factory=set)
    first_of: dict[bytes, int] = field(default_factory=dict)
    """The cache key of each distinct item, and which one brought it first."""
    duplicate_of: dict[int, int] = field(default_factory=dict)
    cached: set[int] = field(default_factory=set)
    """Items whose vectors came from the cache or from another request."""
    making: dict[int, bytes] = field(default_factory=dict)
    """Items that this request embeds, with the keys under which others may wait for them."""
    following: dict[int, asyncio.Future[Entry]] = field(default_factory=dict)
    """Items that another request embeds."""
    slow: set[int] = field(default_factory=set)
    """Images that take long to decode."""
    impatient: bool = False
    """Whether others have been waited for in vain, so that nobody is any more."""
    timing: Timing = field(default_factory=Timing)

    @property
    def doomed(self) -> bool:
        """Whether it fails anyway, so that the model need not run for it."""
        return self.on_error == "fail" and any(isinstance(r, RaylensError) for r in self.rows)

    def take(self, index: int, entry: Entry) -> None:
        """The answer for an item that is not of an earlier one's content."""
        if isinstance(self.items[index], TextItem):
            if entry.truncated and not self.truncate:
                self.rows[index] = too_many_tokens(entry.tokens)
                return
            self.tokens[index] = entry.tokens
            if entry.truncated:
                self.truncated.add(index)
        self.rows[index] = entry.vector


def too_many_tokens(most: int) -> TextTooLong:
    return TextTooLong(
        f"The text is longer than the {most} tokens that the model reads; shorten it or leave "
        "truncate true."
    )
