"""Connections to permitted addresses only: aiohttp's resolver and connector under a DialPolicy.

Knows nothing of URLs or HTTP.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from deployments.errors import UrlForbidden
from deployments.settings import Fetch
from deployments.sources.netguard import DialPolicy


class ThreadResolver(AbstractResolver):
    """The system's `getaddrinfo` in a thread pool of its own.

    aiohttp's resolver uses the loop's default pool. A slow name server, which any client may run,
    would block it for everything else that needs a thread, such as reading files.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of `host`. Raises OSError if there are none."""
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(look_up, flags=socket.AI_ADDRCONFIG)
            )
        except UnicodeError as error:  # a label that is empty or over 63 characters
            raise OSError("no such host name") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Refuses a name if any of its addresses may not be dialled.

    This is not the guard itself, because aiohttp does not resolve IP literals. With it, the outcome
    does not depend on which of several addresses wins the race to connect (RFC 8305).
    """

    def __init__(self, resolver: AbstractResolver, policy: DialPolicy) -> None:
        self._resolver = resolver
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of `host`. Raises UrlForbidden, or OSError if there are none."""
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            if not self._policy.allows(result["host"]):
                raise UrlForbidden(cause=f"not public: {host} is {result['host']}")
        return found

    async def close(self) -> None:
        """Does nothing: the owner of the wrapped resolver closes it."""


def guarded_connector(
    settings: Fetch, resolver: AbstractResolver, policy: DialPolicy, *, keep: bool
) -> TCPConnector:
    """A connector that raises UrlForbidden for addresses that `policy` does not allow. With `keep`,
    it keeps connections for later requests; each kind has `max_connections` of its own.

    It checks the very address that is passed to `connect`, so neither DNS rebinding nor an unusual
    spelling of an address gets past it.
    """

    def open_socket(target: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        if not policy.allows(str(address[0])):
            raise UrlForbidden(cause=f"not public: {address[0]}")
        return socket.socket(family, kind, protocol)

    return TCPConnector(
        resolver=GuardedResolver(resolver, policy),
        socket_factory=open_socket,
        limit=settings.max_connections,
        limit_per_host=settings.max_connections_per_host,
        force_close=not keep,
    )


def open_connector(settings: Fetch, resolver: AbstractResolver, *, keep: bool) -> TCPConnector:
    """A connector that dials any address, for the hosts that the operator named. With `keep`, it
    keeps connections for later requests.
    """
    return TCPConnector(
        resolver=resolver,
        limit=settings.max_connections,
        limit_per_host=settings.max_connections_per_host,
        force_close=not keep,
    )
