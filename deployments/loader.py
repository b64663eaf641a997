"""An item to its bytes, and bytes to pixels, in a bounded pool of decode threads."""

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from deployments.card import Pixels, PixelSpec, ProcessorSpec
from deployments.errors import ImageTooLarge
from deployments.images.fetch import Fetcher
from deployments.images.files import ImageRoots
from deployments.images.inline import decode_base64, decode_data_uri
from deployments.images.room import Room
from deployments.images.workers import DecodeWorkers, TakesLongError
from deployments.items import Base64Item, BytesItem, DataUriItem, ImageItem, PathItem, UrlItem
from deployments.settings import Settings
from deployments.turns import Turns

# Up to here, base64 is read and hashed in less time than a thread needs to take it over.
INLINE_BYTES = 256 * 1024


class Loaded(NamedTuple):
    """An image's bytes, and their SHA-256: equal hashes are the same image."""

    data: bytes
    key: bytes


class Share(NamedTuple):
    """What one request, or one caller, may have in hand at the same time: so that others need not
    wait until all of a large one is done. Decoding it takes in turns with other shares."""

    loads: asyncio.Semaphore
    """Images that are fetched or read: half of the connections that there may be."""
    room: Room
    """Bytes of those: half of what there is in all."""


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
        """Decodes in so many threads, and what takes long in half as many more."""
        self._limits = settings.limits
        self._max_connections = settings.fetch.max_connections
        self._workers = workers
        self._roots = roots
        self._fetcher = fetcher
        self._room = Room(settings.limits.max_inflight_bytes)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._turns = Turns(threads)
        slow_threads = max(1, threads // 2)
        self._slow_pool = ThreadPoolExecutor(slow_threads, thread_name_prefix="decode-slow")
        self._slow_turns = Turns(slow_threads)

    def share(self) -> Share:
        """A share of its own for a request or a caller."""
        return Share(
            asyncio.Semaphore(max(1, self._max_connections // 2)),
            Room(self._limits.max_inflight_bytes // 2),
        )

    @asynccontextmanager
    async def loaded(self, item: ImageItem, share: Share) -> AsyncIterator[Loaded]:
        """The bytes behind an item, while they are needed. Those that are fetched or read wait for
        their turn, and until there is room for them; a request's own came with its body.

        Raises the error that the item is, a RaylensError.
        """
        async with AsyncExitStack() as stack:

            async def reserve(number: int) -> None:
                await stack.enter_async_context(share.room.of(number))
                await stack.enter_async_context(self._room.of(number))

            if isinstance(item, UrlItem | PathItem):
                await stack.enter_async_context(share.loads)
            if isinstance(item, UrlItem):
                item = BytesItem(await self._fetcher.download(item.url, reserve=reserve))
            elif isinstance(item, PathItem):
                await reserve(self._limits.max_image_bytes)
            if _size(item) <= INLINE_BYTES:
                yield self._read(item)
            else:
                loop = asyncio.get_running_loop()
                yield await loop.run_in_executor(self._pool, self._read, item)

    async def decode(
        self, data: bytes, spec: PixelSpec | ProcessorSpec, share: Share
    ) -> Pixels | None:
        """An image's bytes as (H, W, 3), just as the model wants it; None for one that takes long,
        which is for `decode_slowly`.

        Raises UnsupportedImage, CorruptImage or ImageTooLarge.
        """
        loop = asyncio.get_running_loop()
        async with self._turns.of(share):
            try:
                return await loop.run_in_executor(self._pool, self._workers.decode, data, spec)
            except TakesLongError:
                return None

    async def decode_slowly(
        self, data: bytes, spec: PixelSpec | ProcessorSpec, share: Share
    ) -> Pixels:
        """The same for any image, in the lane of those that take long."""
        decode = partial(self._workers.decode, data, spec, slow_lane=True)
        async with self._slow_turns.of(share):
            return await asyncio.get_running_loop().run_in_executor(self._slow_pool, decode)

    def _read(self, item: PathItem | DataUriItem | Base64Item | BytesItem) -> Loaded:
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
        return Loaded(data, hashlib.sha256(data).digest())


def _size(item: PathItem | DataUriItem | Base64Item | BytesItem) -> float:
    """Bytes to go through before the image is there; a disk may take any time."""
    match item:
        case PathItem():
            return math.inf
        case DataUriItem():
            return len(item.uri)
        case Base64Item():
            return len(item.text)
    return len(item.data)
