"""One call of an endpoint: its body, its vectors and its answer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from deployments.api import render
from deployments.api.auth import tenant_of
from deployments.api.bodies import parse_json, read_body, read_json
from deployments.api.schema import Body, parse
from deployments.errors import BadRequest
from deployments.fairness import FairSemaphore, TenantCount
from deployments.items import Item, parse_item, parse_items
from deployments.service.embedding import Embedded, EmbeddingService
from deployments.service.job import Context, ItemGroup, Options, Timing
from deployments.service.options import too_many_items
from deployments.service.vectors import as_matrix
from deployments.settings import Limits
from deployments.wire import Vectors

B = TypeVar("B", bound=Body)
Read = Callable[[Any], Item]


@dataclass(slots=True)
class Call:
    """All that a handler needs: it reads the request, asks the service and answers."""

    request: Request
    service: EmbeddingService
    deadline: float
    """On the loop's clock: when the model must have returned the vectors."""
    parsing: FairSemaphore
    """A turn to parse a large body."""
    forwarded: TenantCount
    """The requests that another service is answering."""
    timing: Timing | None = None
    """Of all that has been embedded."""

    @property
    def limits(self) -> Limits:
        return self.service.settings.limits

    async def raw(self) -> bytes:
        """The body as it is. Raises BodyTooLarge or UnsupportedMediaType."""
        return await read_body(self.request, self.limits.max_body_bytes)

    async def parsed(self, data: bytes) -> dict[str, Any]:
        """A body as a JSON object. Raises BadRequest or BodyTooLarge."""
        return await parse_json(data, self.parsing.turn(tenant_of(self.request)))

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises also UnsupportedMediaType."""
        turn = self.parsing.turn(tenant_of(self.request))
        return await read_json(self.request, self.limits.max_body_bytes, turn)

    async def body(self, kind: type[B]) -> B:
        """The JSON body as a `kind`. Raises also BadRequest, which names the first wrong key."""
        return parse(kind, await self.json())

    def item(self, name: str, value: Any, read: Read = parse_item) -> ItemGroup:
        """The parameter `name`, which is one item, as `read` parses it, or refuses it with a
        RaylensError."""
        return ItemGroup(name, parse_items([value], read), is_list=False)

    def items(self, name: str, value: Any, read: Read = parse_item) -> ItemGroup:
        """The same for an item or a list of them.

        Raises BadRequest for an empty list, TooManyItems for a long one.
        """
        if not isinstance(value, list):
            return self.item(name, value, read)
        if not value:
            raise BadRequest(f"{name} is empty; send at least one item.", param=name)
        limit = self.limits.max_items
        if len(value) > limit:  # before parsing: millions would take minutes and gigabytes
            raise too_many_items(len(value), limit, param=name)
        return ItemGroup(name, parse_items(value, read))

    def context(self, model: str | None) -> Context:
        state = self.request.state
        return Context(model, self.deadline, tenant_of(self.request), state.arrival)

    async def embed(
        self, groups: Sequence[ItemGroup], model: str | None, options: Options | None = None
    ) -> Embedded:
        """All groups embedded together, as `EmbeddingService.embed`."""
        embedded = await self.service.embed(groups, self.context(model), options)
        self.took(embedded.timing)
        return embedded

    async def vectors(
        self, groups: Sequence[ItemGroup], model: str | None, options: Options | None = None
    ) -> tuple[list[Vectors], Embedded]:
        """Each group as its (N, D) vectors: unit vectors, unless the options say otherwise."""
        embedded = await self.embed(groups, model, options)
        ends = np.cumsum([len(group.items) for group in groups])
        return np.split(as_matrix(embedded.rows), ends[:-1]), embedded

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """To be entered while another service answers, for which no model has work to do.

        Raises Overloaded or RateLimited if too many requests are there already.
        """
        tenant = tenant_of(self.request)
        self.request.state.arrival.close()
        self.forwarded.check(
            *(1, tenant),
            in_all="Too many requests are being forwarded; retry after a pause.",
            of_key="Too many requests of this key are being forwarded; retry after a pause.",
            limit="forwarded",
        )
        self.forwarded.add(1, tenant)
        try:
            yield
        finally:
            self.forwarded.add(-1, tenant)

    def took(self, timing: Timing) -> None:
        """Adds to the times that Server-Timing reports."""
        if self.timing is None:
            self.timing = Timing()
        self.timing.add(timing)

    @staticmethod
    def answer(content: Any) -> Response:
        """JSON; numpy arrays are lists."""
        return render.json_response(content)
