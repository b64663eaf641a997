"""A hundred thousand sources take no more memory than a few."""

import asyncio
import io
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylens.client.items import SentItem
from raylens.client.methods import AsyncMethods
from raylens.client.transport import EmbedOptions, Row
from raylens.embed.formats import format_of
from raylens.embed.job import EmbedJob
from raylens.embed.rows import Identity
from raylens.embed.sources import Sources

IDENTITY = Identity("fake", None, 4)
LIMITS = {"max_items": 2048, "max_body_bytes": 2**26, "max_image_bytes": 2**24}


class Instant:
    """A service that answers at once."""

    async def embed(self, items: Sequence[SentItem], options: EmbedOptions) -> list[Row]:
        return list(np.ones((len(items), 4), np.float32))

    async def models(self) -> dict[str, Any]:
        entry = {"id": "fake", "aliases": (), "revision": None, "dimensions": 4}
        return {"data": [entry], "limits": LIMITS}

    async def classify(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def ready(self) -> bool:
        return True

    async def close(self) -> None: ...


class Endless(io.BytesIO):
    """Lines of stdin that are made as they are read."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._lines = (b"https://example.org/%d.jpg\n" % number for number in range(count))

    def __next__(self) -> bytes:
        return next(self._lines)


def run(out: Path, count: int) -> EmbedJob:
    job = EmbedJob(out)
    job.accept(IDENTITY)
    job.scan(Sources(["-"], Endless(count)))
    client = AsyncMethods(Instant(), max_concurrency=8, retries=0)
    asyncio.run(job.embed(client, lambda done, failed: None))
    job.finish()
    job.close()
    return job


def test_memory_is_flat(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    tracemalloc.start()
    try:
        run(out, 100_000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000  # 40 bytes a source would not even hold its name
    assert sum(1 for _ in format_of(out).read(out, vectors=False)) == 100_000


def test_a_hundred_thousand_unchanged_sources_are_soon_passed_over(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    run(out, 100_000)
    began = time.monotonic()
    assert run(out, 100_000).report.unchanged == 100_000
    assert time.monotonic() - began < 60
