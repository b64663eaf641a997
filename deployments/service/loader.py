"""Loads items as bytes, and decodes bytes to pixels in bounded pools of threads."""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from deployments.errors import ImageTooLarge
from deployments.fairness import TENANT_PART, ByteQuota, FairSemaphore
from deployments.items import Base64Item, BytesItem, DataUriItem, ImageItem, PathItem, UrlItem
from deployments.pixels.workers import DecodeWorkers, TakesLongError
from deployments.settings import Settings
from deployments.sources.fetch import Fetcher
from deployments.sources.files import ImageRoots
from deployments.sources.inline import decode_base64, decode_data_uri
from deployments.sources.shared import SharedDownloads
from deployments.wire import Decoded, ImageSpec

# Up to this size, decoding and hashing base64 takes less time than handing it to a thread.
INLINE_BYTES = 256 * 1024


class LoadedImage(NamedTuple):
    """An image's bytes, and their SHA-256: equal hashes are the same image."""

    data: bytes
    digest: bytes


class LoadLimits(NamedTuple):
    """What one tenant, or one request without a key, may load at the same time, so that others need
    not wait for all of a large request. It also stands for that tenant or request in the fair
    semaphores of decoding."""

    loads: asyncio.Semaphore
    """Images being fetched or read: a part of all connections."""
    quota: ByteQuota
    """Bytes of those: a part of the total."""


class ImageLoader:
    """Gets images from wherever their items say they are."""

    def __init__(
        self,
        settings: Settings,
        *,
        roots: ImageRoots,
        fetcher: Fetcher,
        workers: DecodeWorkers,
        threads: int,
    ) -> None:
        """Decodes in `threads` threads, and slow images in half as many more."""
        self._limits = settings.limits
        self._max_connections = settings.fetch.max_connections
        self._workers = workers
        self._roots = roots
        self._quota = ByteQuota(settings.limits.max_inflight_bytes)
        self._downloads = SharedDownloads(fetcher, self._quota)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._semaphore = FairSemaphore(threads)
        self._threads = threads
        self._decode_s = 0.0
        slow_threads = max(1, threads // 2)
        self._slow_pool = ThreadPoolExecutor(slow_threads, thread_name_prefix="decode-slow")
        self._slow_semaphore = FairSemaphore(slow_threads)

    def limits(self) -> LoadLimits:
        """New limits, for a tenant or for one request."""
        return LoadLimits(
            asyncio.Semaphore(max(1, int(TENANT_PART * self._max_connections))),
            ByteQuota(int(TENANT_PART * self._limits.max_inflight_bytes)),
        )

    @property
    def image_s(self) -> float:
        """Seconds to decode an image, all threads together, on a recent average."""
        return self._decode_s / self._threads

    @asynccontextmanager
    async def loaded(self, item: ImageItem, limits: LoadLimits) -> AsyncIterator[LoadedImage]:
        """An item's bytes, held while inside. Fetching and reading wait for `limits`; what came
        with the request's body is in memory already.

        Raises a RaylensError for a bad item.
        """
        async with AsyncExitStack() as held:
            if isinstance(item, UrlItem | PathItem):
                await held.enter_async_context(limits.loads)
            if isinstance(item, UrlItem):
                body = self._downloads.body(item.url, limits.quota)
                item = BytesItem(await held.enter_async_context(body))
            elif isinstance(item, PathItem):
                for quota in (limits.quota, self._quota):
                    await held.enter_async_context(quota.hold(self._limits.max_image_bytes))
            if _size(item) <= INLINE_BYTES:
                yield self._read(item)
            else:
                loop = asyncio.get_running_loop()
                yield await loop.run_in_executor(self._pool, self._read, item)

    async def decode(self, data: bytes, spec: ImageSpec, limits: LoadLimits) -> Decoded | None:
        """An image's bytes as (H, W, 3), ready for the model, and the facts of its file; None if it
        takes long, and is for `decode_slowly`.

        Raises UnsupportedImage, CorruptImage or ImageTooLarge.
        """
        loop = asyncio.get_running_loop()
        async with self._semaphore.turn(limits):
            began = time.monotonic()
            try:
                return await loop.run_in_executor(self._pool, self._workers.decode, data, spec)
            except TakesLongError:
                return None
            finally:
                self._decode_s += 0.1 * (time.monotonic() - began - self._decode_s)

    async def decode_slowly(self, data: bytes, spec: ImageSpec, limits: LoadLimits) -> Decoded:
        """The same for any image, in the slow lane."""
        decode = partial(self._workers.decode, data, spec, slow_lane=True)
        async with self._slow_semaphore.turn(limits):
            return await asyncio.get_running_loop().run_in_executor(self._slow_pool, decode)

    def _read(self, item: PathItem | DataUriItem | Base64Item | BytesItem) -> LoadedImage:
        max_bytes = self._limits.max_image_bytes
        if isinstance(item, PathItem):
            data = self._roots.read(item.path)
        elif isinstance(item, DataUriItem):
            data = decode_data_uri(item.uri, max_bytes=max_bytes)
        elif isinstance(item, Base64Item):
            data = decode_base64(item.text, max_bytes=max_bytes)
        else:
            data = item.data
        if len(data) > max_bytes:
            raise ImageTooLarge(f"The image is larger than {max_bytes} bytes; send a smaller one.")
        return LoadedImage(data, hashlib.sha256(data).digest())


def _size(item: PathItem | DataUriItem | Base64Item | BytesItem) -> float:
    """Bytes to process; infinite for a file, because a disk may take any time."""
    match item:
        case PathItem():
            return math.inf
        case DataUriItem():
            return len(item.uri)
        case Base64Item():
            return len(item.text)
    return len(item.data)
