"""One download for all requests that want the same URL at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from deployments.errors import FetchBadGateway
from deployments.fairness import ByteQuota
from deployments.sources.fetch import Fetcher


class _Download:
    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Looked at here, because all who wanted it may have left when it fails.
        self.body.add_done_callback(lambda body: body.cancelled() or body.exception())
        self.users = 0


class SharedDownloads:
    """Downloads by `fetcher`. Each body counts once in `quota` for as long as anybody holds it."""

    def __init__(self, fetcher: Fetcher, quota: ByteQuota) -> None:
        self._fetcher = fetcher
        self._quota = quota
        self._under_way: dict[str, _Download] = {}

    @asynccontextmanager
    async def body(self, url: str, own_quota: ByteQuota) -> AsyncIterator[bytes]:
        """The body behind `url`, held while inside.

        A download that is under way is joined; it ends early only if all who want it leave. It also
        counts in the `own_quota` of whoever began it: waiting for another quota while holding a
        part of `quota` could end in a deadlock. Raises what `Fetcher.download` raises.
        """
        download = self._under_way.get(url)
        if download is None:
            download = self._under_way[url] = _Download()
            download.task = asyncio.create_task(self._run(url, download, own_quota))
        download.users += 1
        try:
            yield await asyncio.shield(download.body)
        finally:
            download.users -= 1
            if not download.users:
                self._forget(url, download)
                download.task.cancel()

    async def _run(self, url: str, download: _Download, own_quota: ByteQuota) -> None:
        """Downloads, and then holds the bytes' part of the quotas until it is cancelled."""
        async with AsyncExitStack() as held:

            async def reserve(size: int) -> None:
                for quota in (own_quota, self._quota):
                    await held.enter_async_context(quota.hold(size))

            try:
                download.body.set_result(await self._fetcher.download(url, reserve=reserve))
            except Exception as error:
                download.body.set_exception(error)
            except asyncio.CancelledError:  # perhaps because the fetcher was closed
                stopping = FetchBadGateway("The service is stopping. Try again.")
                download.body.set_exception(stopping)
                raise
            finally:
                self._forget(url, download)
            await asyncio.Event().wait()

    def _forget(self, url: str, download: _Download) -> None:
        """From now on, requests ask the origin again."""
        if self._under_way.get(url) is download:
            del self._under_way[url]
