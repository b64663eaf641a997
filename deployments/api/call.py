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
from deployments.items import Item, Modality, parse_item, parse_items
from deployments.service.embedding import Embedded, EmbeddingService, too_many_items
from deployments.service.job import Context, ItemGroup, Options, Timing
from deployments.service.vectors import as_matrix
from deployments.settings import Limits
from deployments.wire import Vectors

B = TypeVar("B", bound=Body)


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

    async def body(self, kind: type[B]) -> B:
        """The JSON body as a `kind`. Raises also BadRequest, which names the first wrong key."""
        turn = self.parsing.turn(tenant_of(self.request))
        return parse(kind, await read_json(self.request, self.limits.max_body_bytes, turn))

    def items(self, name: str, value: Any, modality: Modality | None = None) -> ItemGroup:
        """The parameter `name`, an item or a list of them, each parsed or an error.

        Raises BadRequest for an empty list, TooManyItems for a long one.
        """

        def read(item: Any) -> Item:
            return parse_item(item, modality)

        if not isinstance(value, list):
            return ItemGroup(name, parse_items([value], read), is_list=False)
        return self.each(name, value, read)

    def each(self, name: str, values: list[Any], read: Callable[[Any], Item]) -> ItemGroup:
        """The same for a list, each of whose items `read` parses or refuses with a RaylensError."""
        if not values:
            raise BadRequest(f"{name} is empty; send at least one item.", param=name)
        limit = self.limits.max_items
        if len(values) > limit:  # before parsing: millions would take minutes and gigabytes
            raise too_many_items(len(values), limit, param=name)
        return ItemGroup(name, parse_items(values, read))

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
