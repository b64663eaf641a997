"""What a task does: the bytes of each row's image, decoded as the ingress decodes them.

The same limits, worker processes and fetch policy. Knows nothing of Ray.
"""

import asyncio
import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from deployments.bulk import unread
from deployments.bulk.places import Place
from deployments.bulk.stages import BusyClock, Spent
from deployments.errors import Internal, RaylensError, UnsupportedImage
from deployments.items import BytesItem, UrlItem
from deployments.pixels.workers import DecodeWorkers
from deployments.service.loader import ImageLoader
from deployments.settings import Settings
from deployments.sources.fetch import Fetcher
from deployments.sources.files import ImageRoots
from deployments.wire import Decoded, ImageSpec, Pixels

# Images of one task that are read or fetched at the same time, while one of them is decoded.
READS = 16


@dataclass(frozen=True)
class LoadConfig:
    """How images are loaded, the same in every task of a run."""

    settings: Settings
    spec: ImageSpec


class Unread(NamedTuple):
    """In the place of an image: why it could not be read, as "code: message"."""

    error: str


class Loaded(NamedTuple):
    """An image, or why there is none."""

    pixels: Pixels | None
    error: str | None
    sha256: str | None
    width_height: tuple[int, int] | None


class Loader:
    """Loads the images of one block after the other. One for each process, because its decode
    worker takes longer to start than to decode some hundred images."""

    def __init__(self, config: LoadConfig) -> None:
        settings = config.settings
        limits = settings.limits
        self._spec = config.spec
        self._max_bytes = limits.max_image_bytes
        self._workers = DecodeWorkers(settings.decode, max_pixels=limits.max_image_pixels)
        self._fetcher = Fetcher(settings.fetch, max_bytes=limits.max_image_bytes)
        self._images = ImageLoader(
            settings,
            roots=ImageRoots((), max_bytes=limits.max_image_bytes),
            fetcher=self._fetcher,
            workers=self._workers,
            threads=1,  # a task has one processor
        )
        self._limits = self._images.limits()
        self._reads = ThreadPoolExecutor(READS, thread_name_prefix="read")
        self._decoding = BusyClock()
        self._runner = asyncio.Runner()
        self._runner.run(self._fetcher.start())
        self._workers.warm_up(config.spec)

    def close(self) -> None:
        """Ends its worker processes and connections; those of a task end with its process."""
        self._workers.close()
        self._runner.run(self._fetcher.close())
        self._runner.close()

    def load(self, table: pa.Table, column: str, root: Place | None = None) -> pa.Table:
        """`table` with the columns `_pixels`, `sha256`, `width`, `height`, `error` and `_stages`
        for the images in `column`: bytes, URLs, or files below the folder `root`.
        """
        began = time.time()
        values = table[column].to_pylist()
        values = [
            value if why is None else Unread(why)
            for value, why in zip(values, unread.reasons(table), strict=True)
        ]
        table = table.drop_columns([n for n in table.column_names if n == unread.COLUMN])
        rows = self._runner.run(self._load_all(values, root))
        decode_s = self._decoding.take()
        read_s = max(0.0, time.time() - began - decode_s)  # as far as decoding had to wait for it
        busy = [
            Spent.since(began, "read", len(rows), read_s),
            Spent.since(began, "decode", len(rows), decode_s),
        ]
        return _with_columns(table, rows, self._spec, busy)

    async def _load_all(self, values: list[Any], root: Place | None) -> list[Loaded]:
        turns = asyncio.Semaphore(READS)  # bounds the bytes in memory

        async def in_turn(value: Any) -> Loaded:
            async with turns:
                return await self._load(value, root)

        return await asyncio.gather(*(in_turn(value) for value in values))

    async def _load(self, value: Any, root: Place | None) -> Loaded:
        try:
            item = value if isinstance(value, Unread) else await self._item(value, root)
            if isinstance(item, Unread):
                return Loaded(None, item.error, None, None)
            async with self._images.loaded(item, self._limits) as image:
                data, sha256 = image.data, image.digest.hex()
                try:
                    pixels, facts = await self._decode(data)
                except RaylensError as error:
                    return Loaded(None, _said(error), sha256, None)
                return Loaded(pixels, None, sha256, (facts.width, facts.height))
        except RaylensError as error:
            return Loaded(None, _said(error), None, None)
        except Exception as error:  # one row, not the block
            return Loaded(None, _said(Internal(f"{type(error).__name__}: {error}")), None, None)

    async def _item(self, value: Any, root: Place | None) -> BytesItem | UrlItem | Unread:
        if isinstance(value, bytes):
            return BytesItem(value)
        if not isinstance(value, str) or not value:
            raise UnsupportedImage("There is no image in this row.")
        if value.lower().startswith(("http://", "https://")):
            return UrlItem(value)
        if root is None:
            return Unread(unread.NO_ROOT)
        loop = asyncio.get_running_loop()
        try:
            return BytesItem(await loop.run_in_executor(self._reads, self._read, value, root))
        except FileNotFoundError:
            return Unread(unread.not_below(root))
        except Exception as error:  # whatever object stores' libraries raise
            return Unread(unread.unreadable(error))

    def _read(self, name: str, root: Place) -> bytes:
        """One byte more than allowed, of a file that is too large; the loader refuses it then."""
        return root.below(name).read(most=self._max_bytes)

    async def _decode(self, data: bytes) -> Decoded:
        with self._decoding:
            decoded = await self._images.decode(data, self._spec, self._limits)
            if decoded is None:
                decoded = await self._images.decode_slowly(data, self._spec, self._limits)
            return decoded


@functools.lru_cache(maxsize=1)
def loader(config: LoadConfig) -> Loader:
    """This process's own."""
    return Loader(config)


def pixels_of(table: pa.Table, spec: ImageSpec) -> Pixels:
    """(N, *shape) of the rows that have pixels, without a copy where all rows have."""
    column = table["_pixels"].drop_null().combine_chunks()
    shape = (len(column), *spec.shape)
    _, data = column.buffers()
    size = spec.dtype.itemsize * int(np.prod(shape[1:]))
    flat = np.frombuffer(data, np.uint8)[column.offset * size :][: len(column) * size]
    return flat.view(spec.dtype).reshape(shape)


def _with_columns(
    table: pa.Table, rows: list[Loaded], spec: ImageSpec, spent: list[Spent]
) -> pa.Table:
    size = spec.dtype.itemsize * int(np.prod(spec.shape))
    data = [None if row.pixels is None else row.pixels.tobytes() for row in rows]
    sizes = [row.width_height or (None, None) for row in rows]
    said = [json.dumps([part._asdict() for part in spent]), *[None] * (len(rows) - 1)]
    columns = {
        "_pixels": pa.array(data, pa.binary(size)),
        "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        "width": pa.array([width for width, _ in sizes], pa.int32()),
        "height": pa.array([height for _, height in sizes], pa.int32()),
        "error": pa.array([row.error for row in rows], pa.string()),
        "_stages": pa.array(said[: len(rows)], pa.string()),
    }
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    return table


def _said(error: RaylensError) -> str:
    return f"{error.code}: {error.message}"
