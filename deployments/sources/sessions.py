"""One GET under the dial policy, on a kept connection or a fresh one. Follows no redirects."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from deployments.settings import Fetch
from deployments.sources.connector import ThreadResolver, guarded_connector, open_connector
from deployments.sources.netguard import DialPolicy

# Content delivery networks send cookies and policies of many KB.
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 512


class ConnectionDroppedError(aiohttp.ClientConnectionError):
    """The origin closed the connection before it answered."""


class _Pair(NamedTuple):
    keeping: aiohttp.ClientSession
    fresh: aiohttp.ClientSession
    """Makes a new connection for each request."""


class Sessions:
    """aiohttp's sessions: guarded ones and, where there are `allow_hosts`, others without a guard.

    The two kinds share no connections and no cached names, so whether a redirect may dial any
    address depends on its own URL alone. `start` them in the running loop, `close` them at last.
    `resolver` replaces the system's.
    """

    def __init__(self, settings: Fetch, *, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._given_resolver = resolver
        self._policy = DialPolicy(settings.allow_cidrs)
        self._open_hosts = frozenset(
            URL.build(scheme="http", host=host).raw_host for host in settings.allow_hosts
        )
        self._resolver: AbstractResolver | None = None
        self._guarded: _Pair | None = None
        self._open: _Pair | None = None

    async def start(self) -> None:
        self._resolver = resolver = self._given_resolver or ThreadResolver(
            self._settings.max_connections
        )
        guarded = partial(guarded_connector, self._settings, resolver, self._policy)
        self._guarded = self._pair(guarded)
        if self._open_hosts:
            self._open = self._pair(partial(open_connector, self._settings, resolver))

    async def close(self) -> None:
        """Closes every connection; requests in flight fail."""
        for session in (*(self._guarded or ()), *(self._open or ())):
            await session.close()
        if self._resolver is not None:
            await self._resolver.close()
        self._guarded = self._open = self._resolver = None

    async def get(self, url: URL, deadline: asyncio.Timeout) -> aiohttp.ClientResponse:
        """The head of the answer. Origins close idle connections, some with a 408, perhaps just as
        a request is on its way: it is sent once more then, on a fresh one. `deadline` does not run
        while all connections are in use.

        Raises ConnectionDroppedError, UrlForbidden, or one of aiohttp's exceptions.
        """
        pair = self._open if url.raw_host in self._open_hosts else self._guarded
        if pair is None:
            raise RuntimeError("the sessions are not started")
        with suppress(ConnectionDroppedError):
            response = await _get(pair.keeping, url, deadline)
            if response.status != HTTPStatus.REQUEST_TIMEOUT:
                return response
            response.close()
        return await _get(pair.fresh, url, deadline)

    def _pair(self, connector: Callable[..., aiohttp.TCPConnector]) -> _Pair:
        return _Pair(self._session(connector(keep=True)), self._session(connector(keep=False)))

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        queue = aiohttp.TraceConfig()
        queue.on_connection_queued_start.append(_stop_the_clock)
        queue.on_connection_queued_end.append(_start_the_clock)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"raylens/{_version()}",
                "Accept": "image/*, */*;q=0.8",  # some servers refuse the first alone
                "Accept-Encoding": "gzip, deflate",
            },
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.idle_timeout_s, sock_read=None
            ),
            trust_env=False,
            auto_decompress=False,  # a redirect must not fail because of its body's coding
            trace_configs=[queue],
            middlewares=(_send_once,),
        )


async def _get(
    session: aiohttp.ClientSession, url: URL, deadline: asyncio.Timeout
) -> aiohttp.ClientResponse:
    return await session.get(url, allow_redirects=False, trace_request_ctx=deadline)


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp itself would repeat the request on the next kept connection, which may be as stale;
    it does so for its own exceptions only.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionDroppedError("dropped before it answered") from error


def stop(deadline: asyncio.Timeout) -> float:
    """Stops the clock and returns the seconds left."""
    when = deadline.when()
    assert when is not None  # noqa: S101  (the clock runs unless this has stopped it)
    deadline.reschedule(None)
    return when - asyncio.get_running_loop().time()


def go_on(deadline: asyncio.Timeout, left_s: float) -> None:
    """Starts the clock again, with `left_s` seconds to go."""
    deadline.reschedule(asyncio.get_running_loop().time() + left_s)


async def _stop_the_clock(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.left_s = stop(context.trace_request_ctx)


async def _start_the_clock(_: Any, context: SimpleNamespace, __: Any) -> None:
    go_on(context.trace_request_ctx, context.left_s)


def _version() -> str:
    try:
        return version("raylens")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0"
