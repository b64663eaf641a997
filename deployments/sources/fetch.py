"""Image bytes over HTTP. Knows nothing of pixels.

`netguard` says which addresses may be dialled, and `connector` enforces it.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from contextlib import closing

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from deployments.errors import (
    BadUrl,
    FetchBadGateway,
    FetchFailed,
    FetchTimeout,
    ImageTooLarge,
    RaylensError,
)
from deployments.metrics.declared import IngressMetrics
from deployments.settings import Fetch
from deployments.sources.breaker import Breaker
from deployments.sources.encodings import TooManyBytesError, Unpacker
from deployments.sources.sessions import ConnectionDroppedError, Sessions, go_on, stop
from deployments.sources.urls import parse_url, redirected

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ANSWERS = frozenset({200, 203})  # 203: as a proxy on the way has changed it (RFC 9110, 15.3.4)
# The first row that matches applies; RaylensErrors pass unchanged. The messages are our own,
# because those of the exceptions contain addresses and whatever the origin sent.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[RaylensError], str], ...] = (
    ((TimeoutError,), FetchTimeout, "The image's server did not deliver it in time. Try later."),
    ((aiohttp.InvalidURL,), BadUrl, "That URL cannot be fetched. Check its spelling."),
    (
        (aiohttp.ClientPayloadError,),
        FetchBadGateway,
        "The image's server cut its answer short or encoded it wrongly. Try again later.",
    ),
    (
        (aiohttp.ClientConnectorDNSError,),
        FetchBadGateway,
        "The URL's host name was not found. Check its spelling.",
    ),
    (
        (aiohttp.ClientSSLError,),
        FetchBadGateway,
        "A trusted TLS connection to the image's server could not be made. Check its certificate.",
    ),
    (
        (OSError, ConnectionDroppedError),  # refused, unreachable, lost
        FetchBadGateway,
        "The image's server could not be reached, or the connection broke. Try again later.",
    ),
    (
        # aiohttp lets ValueError through for some malformed headers and names.
        (aiohttp.ClientError, ValueError),
        FetchBadGateway,
        "The image's server did not answer in proper HTTP. Try again later.",
    ),
)


class Fetcher:
    """Downloads by URL under the fetch policy. `start` it in the running loop, `close` it at last.

    Bodies are limited to `max_bytes` bytes after decompression. `resolver` replaces the system's.
    """

    def __init__(
        self,
        settings: Fetch,
        *,
        max_bytes: int,
        resolver: AbstractResolver | None = None,
        metrics: IngressMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._sessions = Sessions(settings, resolver=resolver)
        self._breaker = Breaker()
        self._fetched_bytes = (metrics or IngressMetrics()).fetched_bytes

    async def start(self) -> None:
        await self._sessions.start()

    async def close(self) -> None:
        """Closes every connection; downloads in flight fail."""
        await self._sessions.close()

    async def download(
        self, url: str, *, reserve: Callable[[int], Awaitable[None]] | None = None
    ) -> bytes:
        """The body behind `url`, at most `max_bytes` bytes; empty if the origin sends nothing.
        `reserve` is awaited with an upper bound on its bytes before it is read.

        Raises BadUrl, UrlForbidden, ImageTooLarge, FetchFailed (the origin answers neither 200,
        203 nor 5xx, or with a redirect that cannot be followed), FetchBadGateway (it fails) and
        FetchTimeout.
        The time limit starts with the first look-up. It is paused while all connections are in
        use and while `reserve` waits, so that a long list of images on one host does not time out.
        """
        target = parse_url(url, allow_ports=self._settings.allow_ports)
        try:
            async with asyncio.timeout(self._settings.timeout_s) as deadline:
                return await self._follow(target, deadline, reserve or _nothing)
        except TimeoutError as error:
            raise in_our_words(error, origin=str(target.origin())) from error

    async def _follow(
        self, url: URL, deadline: asyncio.Timeout, reserve: Callable[[int], Awaitable[None]]
    ) -> bytes:
        for _ in range(self._settings.max_redirects + 1):
            try:
                # Closing keeps the connection if the body was read to the end.
                with closing(await self._ask(url, deadline)) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        size = self._size(response)
                        left_s = stop(deadline)
                        await reserve(size)
                        go_on(deadline, left_s)
                        return await self._body(response)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise in_our_words(error, origin=str(url.origin())) from error
            url = redirected(url, location, allow_ports=self._settings.allow_ports)
        raise FetchFailed(
            f"The URL redirects more than {self._settings.max_redirects} times. "
            "Use the URL it leads to."
        )

    async def _ask(self, url: URL, deadline: asyncio.Timeout) -> aiohttp.ClientResponse:
        origin = str(url.origin())
        if self._breaker.is_dead(origin):
            raise FetchBadGateway(
                "The image's server has not answered lately. Try again later.",
                cause=f"not asked again: {origin} could not be reached a moment ago",
            )
        try:
            response = await self._sessions.get(url, deadline)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._breaker.failed(origin)
            raise
        self._breaker.answered(origin)
        return response

    def _size(self, response: aiohttp.ClientResponse) -> int:
        """An upper bound on the body's bytes. Raises the error that the status or length means."""
        status = response.status
        if status >= 500:
            raise FetchBadGateway(
                f"The image's server answered {status}. Try again later.", cause=_answered(response)
            )
        if status not in _ANSWERS:
            raise FetchFailed(
                f"The image's server answered {status}. Check the URL.", cause=_answered(response)
            )
        length = response.content_length
        if (length or 0) > self._max_bytes:
            raise self._too_large()
        packed = "Content-Encoding" in response.headers
        return self._max_bytes if length is None or packed else length

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        codings = response.headers.getall("Content-Encoding", [])
        unpacker = Unpacker(codings, most=self._max_bytes)
        body = bytearray()
        try:
            while chunk := await self._next_bytes(response):
                self._fetched_bytes.add(len(chunk))
                body += unpacker.unpack(chunk)
                if len(body) > self._max_bytes:
                    raise self._too_large()
            unpacker.end()
        except TooManyBytesError:
            raise self._too_large() from None
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(str(error)) from error
        return bytes(body)

    async def _next_bytes(self, response: aiohttp.ClientResponse) -> bytes:
        """Empty at the end. The idle limit is for the body alone: some servers take long to make an
        image, and then send it at once.
        """
        async with asyncio.timeout(self._settings.idle_timeout_s):
            return await response.content.readany()

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(
            f"The image behind the URL is larger than {self._max_bytes} bytes. Use a smaller one."
        )


def in_our_words(error: Exception, *, origin: str = "") -> RaylensError:
    """One of aiohttp's or the system's exceptions as ours, with the cause for the log."""
    for kinds, meaning, message in _MEANINGS:
        if isinstance(error, kinds):
            # Others may quote the URL, whose query may hold a signature.
            details = f"{error} " if isinstance(error, OSError) else ""
            return meaning(message, cause=f"{type(error).__name__}: {details}from {origin}")
    raise error


def _answered(response: aiohttp.ClientResponse) -> str:
    return f"status {response.status}: from {response.url.origin()}"


async def _nothing(number: int) -> None:
    pass
