"""Who gets how much: what tenants share, and how much of it one of them may have.

A tenant is the name of an API key, or None for all who come without one. Knows nothing of what is
shared.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

# Of anything counted here, what one tenant may have, so that none can keep the others out.
TENANT_PART = 0.5


@dataclass(slots=True)
class _Account:
    used_s: float
    inside: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class FairSemaphore:
    """A semaphore that admits the least-served tenant first.

    Served is the time spent inside. So a tenant with a long queue, or one whose turns take long,
    makes others wait only for turns that have begun.
    """

    def __init__(self, turns: int) -> None:
        self._free = turns
        self._accounts: dict[Hashable, _Account] = {}  # of those who are inside or wait
        self._least_s = 0.0  # what the last one admitted had used; newcomers begin there

    @asynccontextmanager
    async def turn(self, tenant: Hashable) -> AsyncIterator[None]:
        account = self._accounts.setdefault(tenant, _Account(self._least_s))
        account.inside += 1
        try:
            await self._acquire(account)
            began = time.monotonic()
            try:
                yield
            finally:
                account.used_s += time.monotonic() - began
                self._release()
        finally:
            account.inside -= 1
            if not account.inside:
                del self._accounts[tenant]

    async def _acquire(self, account: _Account) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        account.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was granted at the same moment
                self._release()
            raise

    def _release(self) -> None:
        while waiting := [account for account in self._accounts.values() if account.waiting]:
            account = min(waiting, key=lambda account: account.used_s)
            turn = account.waiting.popleft()
            if not turn.done():  # whoever waited for it has not left
                self._least_s = max(self._least_s, account.used_s)
                turn.set_result(None)
                return
        self._free += 1


class ByteQuota:
    """Bytes that run out. Who asks first gets them first, and waits until they are free."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free = max_bytes
        self._turn = asyncio.Lock()  # serves in order
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, number: int) -> AsyncIterator[None]:
        """Holds so many bytes, or all that there are, while one is inside."""
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


class TenantCount:
    """Things under way, of all tenants and of each. What goes beyond the limit is refused.

    Whoever is alone is let in with as much as he likes: other limits hold for one request.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._held_by: Counter[str] = Counter()

    def refusal(
        self, more: int, tenant: str | None, *, held: int = 0, part: float = 1.0
    ) -> Literal["all", "tenant"] | None:
        """Whose limit `more` would exceed, if any. The asker has `held` already, and may fill the
        limits up to `part` of them.
        """
        if self._held > held and self._held + more > part * self._most:
            return "all"
        if tenant is not None:
            own = self._held_by[tenant]
            if own > held and own + more > part * TENANT_PART * self._most:
                return "tenant"
        return None

    def add(self, number: int, tenant: str | None) -> None:
        """Counts `number` more, or fewer if it is negative."""
        self._held += number
        if tenant is not None:
            self._held_by[tenant] += number
            if not self._held_by[tenant]:
                del self._held_by[tenant]


def equal_part(number: int, tenants: int) -> int:
    """What each of `tenants` gets of `number` things, and at least one."""
    return max(1, number // tenants)
