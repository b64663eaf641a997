"""Models that take little at once or hold back their answers, and a fetcher of given contents."""

import asyncio
from typing import Any

from deployments.wire import StackVectors
from tests.fakes import FakeModel

IMAGE_BYTES = 8 * 8 * 3  # of the fake model


class SmallStacksModel(FakeModel):
    """Takes at most `images` at once."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.stack_bytes = images * IMAGE_BYTES + 1


class HeldModel(FakeModel):
    """Takes one image at a time and holds back each answer until the test says how it ends."""

    stack_bytes = IMAGE_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[asyncio.Future[None]] = []
        self._arrival = asyncio.Event()

    async def embed(self, *call: Any) -> StackVectors:
        held = asyncio.get_running_loop().create_future()
        self.calls.append(held)
        self._arrival.set()
        await held
        return await super().embed(*call)

    async def taken(self, number: int) -> None:
        """Waits for `number` calls to arrive; their images are decoded first."""
        async with asyncio.timeout(10):
            while len(self.calls) < number:
                self._arrival.clear()
                await self._arrival.wait()


class FakeFetcher:
    """Returns the bytes, or raises the error, that it was given for a URL."""

    def __init__(self, **contents: bytes | Exception) -> None:
        self.contents = contents
        self.downloads: list[str] = []

    async def download(self, url: str, *, reserve: Any) -> bytes:
        self.downloads.append(url)
        content = self.contents[url.removeprefix("https://")]
        if isinstance(content, Exception):
            raise content
        return content
