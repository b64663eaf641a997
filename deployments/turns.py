"""So many things at a time, and as much time for everybody."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Party:
    used_s: float
    inside: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Turns:
    """A semaphore whose next turn goes to whoever has had the least time inside, among those who
    wait: so who has much waiting, or takes long, makes nobody wait but for what has begun.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._parties: dict[Hashable, _Party] = {}  # as long as they are inside or wait
        self._least_s = 0.0  # what the last one to get a turn had had; newcomers begin there

    @asynccontextmanager
    async def of(self, who: Hashable) -> AsyncIterator[None]:
        """One of the turns, while one is inside."""
        party = self._parties.setdefault(who, _Party(self._least_s))
        party.inside += 1
        try:
            await self._take(party)
            began = time.monotonic()
            try:
                yield
            finally:
                party.used_s += time.monotonic() - began
                self._give()
        finally:
            party.inside -= 1
            if not party.inside:
                del self._parties[who]

    async def _take(self, party: _Party) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        party.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self._give()
            raise

    def _give(self) -> None:
        while waiting := [party for party in self._parties.values() if party.waiting]:
            party = min(waiting, key=lambda party: party.used_s)
            turn = party.waiting.popleft()
            if not turn.done():  # whoever waited for it has not left
                self._least_s = max(self._least_s, party.used_s)
                turn.set_result(None)
                return
        self._free += 1
