"""So many things at a time, and everybody's in turn."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """A semaphore that goes round: who has much waiting gets no more turns than others."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def of(self, who: Hashable) -> AsyncIterator[None]:
        """One of the turns, while one is inside."""
        await self._take(who)
        try:
            yield
        finally:
            self._give()

    async def _take(self, who: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self._give()
            raise

    def _give(self) -> None:
        while self._waiting:
            who, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[who] = turns  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
