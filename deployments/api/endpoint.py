"""What an endpoint is, and what a dialect is: endpoints whose errors have the same shape."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from starlette.responses import Response
from starlette.routing import compile_path

from deployments.api.call import Call
from deployments.errors import RaylensError

Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """Its route, its handler, and what /openapi.json says about it."""

    method: Literal["GET", "POST"]
    path: str
    """As Starlette writes it: `/v1/models/{model:path}`."""
    handler: Handler
    summary: str
    answer: Any
    """The type of its JSON, or None for an empty one."""
    statuses: tuple[int, ...]
    """Of errors."""
    body: Any = None
    """The type of what it takes, mostly a `Body`; None for nothing."""
    media: str = "application/json"
    """The media type of the body."""
    success: int = 200
    """The status of its answer."""
    is_open: bool = False
    """Whether it answers without a key, where others need one."""

    @property
    def name(self) -> str:
        """The operation's id in /openapi.json, unique because it names the method and the path."""
        words = re.findall(r"\w+", re.sub(r":path|\.json", "", self.path))
        return "_".join([self.method.lower(), *words])

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Starlette's own does not match a line break in a `path`, and finds no endpoint there.
        return re.compile(compile_path(self.path)[0].pattern, re.DOTALL)

    def is_at(self, path: str) -> bool:
        return self._pattern.match(path) is not None


def post(
    path: str,
    handler: Handler,
    summary: str,
    answer: Any,
    body: Any,
    *,
    media: str = "application/json",
    statuses: tuple[int, ...] = (),
) -> Endpoint:
    """One that embeds items, with these `statuses` of errors besides those of all of them."""
    usual = (400, 401, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504)
    return Endpoint("POST", path, handler, summary, answer, (*usual, *statuses), body, media)


def get(
    path: str, handler: Handler, summary: str, answer: Any, *, statuses: tuple[int, ...] = ()
) -> Endpoint:
    """One that tells something, with these `statuses` of errors besides those of all of them."""
    usual = (401, 429, 500, 503, 504)
    return Endpoint("GET", path, handler, summary, answer, (*usual, *statuses))


def probe(
    path: str, handler: Handler, summary: str, answer: Any = None, *, success: int = 200
) -> Endpoint:
    """A health check, which comes without a key."""
    statuses = (500, 503, 504)
    return Endpoint("GET", path, handler, summary, answer, statuses, success=success, is_open=True)


@dataclass(frozen=True)
class Dialect:
    """How the clients of one service talk."""

    name: str
    """In the setting `api.dialects`, and as the tag in /openapi.json."""
    endpoints: tuple[Endpoint, ...]
    error: Callable[[RaylensError, str], Any]
    """The JSON of an error, given the request's id."""
    error_answer: Any
    """Its type."""
    statuses: Mapping[int, int] = field(default_factory=dict, hash=False)
    """The statuses that this service gives to errors in place of the API's."""

    def status(self, status: int) -> int:
        """What this service answers where the API answers `status`."""
        return self.statuses.get(status, status)

    def is_at(self, path: str) -> bool:
        """Whether it has an endpoint there, with whatever method."""
        return any(endpoint.is_at(path) for endpoint in self.endpoints)
