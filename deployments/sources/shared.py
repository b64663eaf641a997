"""One download for all requests that want the same URL at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from deployments.fairness import ByteQuota
from deployments.sources.fetch import Fetcher


class _Download:
    task: asyncio.Task[None]

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
        self._under_way: dict[str, _Download] = {}

    @asynccontextmanager
    async def body(self, url: str, own_quota: ByteQuota) -> AsyncIterator[bytes]:
        """The body behind `url`, held while inside; it also counts in `own_quota`.

        Raises what `Fetcher.download` raises. A download that is under way is joined; it ends early
        only if all who want it leave. It is read as soon as the own quota of one of them admits it.
        """
        download = self._under_way.get(url)
        if download is None:
            download = self._under_way[url] = _Download()
            download.task = asyncio.create_task(self._run(url, download))
        download.users += 1
        try:
            async with AsyncExitStack() as held:
                # The size comes first, unless the download fails before.
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
                download.task.cancel()

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
        """From now on, requests ask the origin again."""
        if self._under_way.get(url) is download:
            del self._under_way[url]
