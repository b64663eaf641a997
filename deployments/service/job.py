"""A request in progress: its tenant, its options, and what is known of each item so far."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal, Protocol

from deployments.errors import RaylensError, TextTooLong
from deployments.items import Parsed, TextItem
from deployments.service.cache import Entry
from deployments.service.loader import LoadLimits
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import ImageFacts, ModelCard, Pixels, StackVectors, Tokens, Vector

OnError = Literal["fail", "report"]
Stage = Literal["fetch", "decode", "queue", "model"]


class ModelClient(Protocol):
    """A model deployment as the service sees it."""

    stack_bytes: int
    """The largest stack of pixels that fits into one call."""

    @property
    def names(self) -> frozenset[str]:
        """Its id and its aliases."""

    @property
    def is_loaded(self) -> bool:
        """Whether there is a card."""

    def item_s(self, *, text: bool = False) -> float:
        """Seconds that all replicas together need for an image or a text; 0 while unknown."""

    @property
    def others_s(self) -> float:
        """Seconds of work that other ingress replicas have waiting at the model."""

    def refusal(self) -> RaylensError | None:
        """Why the model takes no requests just now, if it does not."""

    def refused(self, items: float) -> None:
        """Tells the model that so many items were refused because too much waits for it."""

    @property
    def card(self) -> ModelCard:
        """Raises Unavailable while the model has not been loaded yet."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of a model whose card has a text tower. Raises Unavailable like `card`."""

    async def embed(
        self, stack: Pixels, identity: bytes, deadline: float, tenant: str | None
    ) -> StackVectors:
        """(N, H, W, 3) in the geometry of the card with this identity to N raw vectors, before
        `deadline` on the loop's clock. Tenants share the model; stacks of the same tenant wait for
        each other.

        Raises ModelReplaced if only another model serves, Unavailable, Overloaded, DeadlineExceeded
        or Internal.
        """

    async def embed_text(
        self, stack: Tokens, identity: bytes, deadline: float, tenant: str | None
    ) -> StackVectors:
        """(N, L) token ids to N raw vectors; otherwise like `embed`."""

    async def reloaded(self) -> None:
        """Waits, after ModelReplaced, until the new model's card and tokenizer have been asked
        for."""

    async def ready(self, within_s: float = math.inf) -> ModelCard:
        """Checks that the model works right now. Raises Unavailable with the reason, after
        `within_s` seconds at the latest."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every step of a request needs to know."""

    model: str | None
    """What the request calls it; None for the first one."""
    deadline: float
    """On the loop's clock: when the model must have returned the vectors."""
    tenant: str | None = None
    arrival: ExitStack | None = None
    """To be closed when the items count: of a request whose body had to be read first."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a request wants its vectors."""

    dimensions: int | None = None
    """Truncate vectors to so many, for models that allow it."""
    normalize: bool = True
    truncate: bool = True
    """Whether to truncate a text that is too long; otherwise it is an error."""
    on_error: OnError = "fail"
    """Whether a bad item fails the request or is reported in its place."""
    largest: float = math.inf
    """The largest number that the caller's type holds; a vector with a larger one is an error."""
    several: bool = False
    """Whether the caller can take several vectors for each item, of a model that gives them."""
    number_bytes: float = 4.0
    """Of each number in the answer."""


@dataclass(frozen=True, slots=True)
class ItemGroup:
    """The items of one parameter of a request, whose name errors show."""

    name: str
    items: Sequence[Parsed]
    is_list: bool = True
    """Whether the parameter is a list, so that errors name an index."""
    first: int = 0
    """The index of the first item, if this is a part of a longer list."""

    def param(self, index: int) -> str:
        """The `param` of an error in the item at `index` of `items`."""
        return f"{self.name}[{self.first + index}]" if self.is_list else self.name


@dataclass(slots=True)
class Timing:
    """Milliseconds by stage. Items overlap, so a stage is as long as its slowest item."""

    fetch: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    model: float = 0.0

    def note(self, stage: Stage, ms: float) -> None:
        setattr(self, stage, max(getattr(self, stage), ms))

    def add(self, later: "Timing") -> None:
        """Adds what came after this, in the same request."""
        self.fetch += later.fetch
        self.decode += later.decode
        self.queue += later.queue
        self.model += later.model


@dataclass(slots=True, eq=False)
class Slot:
    """One item of a job, and what is known of it."""

    item: Parsed
    row: Vector | RaylensError | None = None
    """The result: the model's raw vector, or the error of this item."""
    key: bytes | None = None
    """The cache key under which other jobs may wait while this job computes the vector."""
    duplicate_of: "Slot | None" = None
    """An earlier slot with the same content, whose row this one gets."""
    flight: asyncio.Future[Entry] | None = None
    """The entry that another job is computing."""
    tokens: int = 0
    """How many tokens of its text the model reads."""
    truncated: bool = False
    """Whether the text was longer than that."""
    image: ImageFacts | None = None
    """Of an image, once it has been decoded."""
    cached: bool = False
    """Whether the row came from the cache or from another job."""
    is_slow: bool = False
    """Whether the image takes long to decode."""

    @property
    def is_bad(self) -> bool:
        return isinstance(self.row, RaylensError)

    def take(self, entry: Entry, *, truncate: bool) -> None:
        """Takes the entry that the cache or another job has."""
        if entry.truncated and not truncate:
            self.row = too_many_tokens(entry.tokens)
            return
        self.row, self.cached = entry.vector, True
        self.tokens, self.truncated, self.image = entry.tokens, entry.truncated, entry.image


@dataclass(slots=True)
class Job:
    """One request in progress."""

    slots: list[Slot]
    context: Context
    model: ModelClient
    card: ModelCard
    """The model's when the job began, as is `tokenizer`: the model may be replaced meanwhile."""
    tokenizer: TextTokenizer | None
    options: Options
    load_by: float
    """On the loop's clock: when images that are not decoded yet fail, so that the model has time
    for the others."""
    limits: LoadLimits
    first_of: dict[bytes, Slot] = field(default_factory=dict)
    """By cache key, the first slot with that content."""
    impatient: bool = False
    """Whether waiting for other jobs timed out, so that this one embeds everything itself."""
    timing: Timing = field(default_factory=Timing)

    @property
    def is_doomed(self) -> bool:
        """Whether the request fails anyway, so that the model need not run for it."""
        return self.options.on_error == "fail" and any(slot.is_bad for slot in self.slots)


def is_text(slot: Slot) -> bool:
    return isinstance(slot.item, TextItem)


def too_many_tokens(limit: int) -> TextTooLong:
    return TextTooLong(
        f"The text is longer than the {limit} tokens that the model reads; shorten it, or let it "
        "be truncated."
    )
