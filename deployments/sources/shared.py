"""One download for all requests that want the same URL at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from deployments.fairness import ByteQuota
from deployments.sources.fetch import Fetcher


class _Download:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.size: asyncio.Future[int] = loop.create_future()
        self.may_read = asyncio.Event()
        self.body: asyncio.Future[bytes] = loop.create_future()
        self.users = 0


class SharedDownloads:
    """Downloads by `fetcher`. Each body counts once in `quota` for as long as anybody holds it."""

    def __init__(self, fetcher: Fetcher, quota: ByteQuota) -> None:
        self._fetcher = fetcher
        self._quota = quota
        self._under_way: dict[str, tuple[_Download, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def body(self, url: str, own_quota: ByteQuota) -> AsyncIterator[bytes]:
        """The body behind `url`, held while inside, when it counts in `own_quota` as well.

        Raises what `Fetcher.download` raises. A download that is under way is joined; it ends early
        only if all who want it leave. It is read as soon as one of them has room in its own quota.
        """
        if url not in self._under_way:
            download = _Download()
            self._under_way[url] = download, asyncio.create_task(self._run(url, download))
        download, task = self._under_way[url]
        download.users += 1
        try:
            async with AsyncExitStack() as held:
                # Without a size, it has failed.
                await asyncio.wait(
                    (download.size, download.body), return_when=asyncio.FIRST_COMPLETED
                )
                if download.size.done():
                    await held.enter_async_context(own_quota.hold(download.size.result()))
                    download.may_read.set()
                yield await asyncio.shield(download.body)
        finally:
            download.users -= 1
            if not download.users:
                self._forget(url, download)
                task.cancel()

    async def _run(self, url: str, download: _Download) -> None:
        """Downloads, and then holds the bytes' part of the quota until it is cancelled."""
        async with AsyncExitStack() as held:

            async def reserve(size: int) -> None:
                download.size.set_result(size)
                await download.may_read.wait()
                await held.enter_async_context(self._quota.hold(size))

            try:
                download.body.set_result(await self._fetcher.download(url, reserve=reserve))
            except Exception as error:
                download.body.set_exception(error)
            self._forget(url, download)
            await asyncio.Event().wait()

    def _forget(self, url: str, download: _Download) -> None:
        """Later callers ask the origin again."""
        if self._under_way.get(url, (None,))[0] is download:
            del self._under_way[url]
