"""An item to its bytes, and bytes to pixels, in a bounded pool of decode threads."""

import asyncio
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from deployments.card import Pixels, PixelSpec, ProcessorSpec
from deployments.errors import ImageTooLarge, RaylensError
from deployments.images.decode import decode
from deployments.images.fetch import Fetcher
from deployments.images.files import ImageRoots
from deployments.images.inline import decode_base64, decode_data_uri
from deployments.items import Base64Item, BytesItem, DataUriItem, ImageItem, PathItem, UrlItem
from deployments.settings import Settings

# Up to here, base64 is read and hashed in less time than a thread needs to take it over.
INLINE_BYTES = 256 * 1024


class Loaded(NamedTuple):
    """An image's bytes, and their SHA-256: equal hashes are the same image."""

    data: bytes
    key: bytes


class ImageLoader:
    """Gets images from wherever their items say they are."""

    def __init__(
        self, settings: Settings, *, roots: ImageRoots, fetcher: Fetcher, threads: int
    ) -> None:
        self.threads = threads
        self._limits = settings.limits
        self._decoding = settings.decode
        self._roots = roots
        self._fetcher = fetcher
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def load(self, item: ImageItem) -> Loaded:
        """The bytes behind an item. Raises the error that the item is, a RaylensError."""
        if isinstance(item, UrlItem):
            item = BytesItem(await self._fetcher.download(item.url))
        if _size(item) <= INLINE_BYTES:
            return self._read(item)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, item)

    async def decode(self, data: bytes, spec: PixelSpec | ProcessorSpec) -> Pixels:
        """An image's bytes as (H, W, 3), just as the model wants it.

        Raises UnsupportedImage, CorruptImage or ImageTooLarge.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._decode, data, spec
        )

    async def warm_up(self, spec: PixelSpec | ProcessorSpec) -> None:
        """Decodes a picture, so that no caller waits for what the first one has imported."""
        buffer = BytesIO()
        Image.new("RGB", (64, 48)).save(buffer, "JPEG")
        with suppress(RaylensError):  # of a model that does not take such a small one
            await self.decode(buffer.getvalue(), spec)

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

    def _decode(self, data: bytes, spec: PixelSpec | ProcessorSpec) -> Pixels:
        return decode(
            data,
            spec,
            max_pixels=self._limits.max_image_pixels,
            allow_tiff=self._decoding.allow_tiff,
            fast=self._decoding.mode == "fast",
        )


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
