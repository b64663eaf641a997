"""How many bytes of images may be there and not yet decoded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Bytes to be had; who came first gets them first, and waits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free = max_bytes
        self._turn = asyncio.Lock()  # serves in order
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def of(self, number: int) -> AsyncIterator[None]:
        """Room for so many bytes, or all that there is, while one is inside."""
        number = min(number, self._max_bytes)
        async with self._turn:
            while self._free < number:
                self._freed.clear()
                await self._freed.wait()
            self._free -= number
        try:
            yield
        finally:
            self._free += number
            self._freed.set()
