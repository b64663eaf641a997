"""How tenants share limited resources: a fair semaphore, byte quotas and counts.

A tenant is the name of an API key, or None for all requests without one. Knows nothing of the
resources themselves.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from deployments.errors import Overloaded, RateLimited

# The part of any count here that one tenant may hold, so that none can lock the others out.
TENANT_PART = 0.5


@dataclass(slots=True)
class _Account:
    used_s: float
    inside: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class FairSemaphore:
    """A semaphore that admits the least-served tenant first.

    Service is measured as time spent inside, so a tenant with a long queue or slow turns delays
    others only by turns that have already begun.
    """

    def __init__(self, turns: int) -> None:
        self._free = turns
        self._accounts: dict[Hashable, _Account] = {}  # of tenants inside or waiting
        self._least_s = 0.0  # used by the last one admitted; new tenants start there

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        account = self._accounts.setdefault(key, _Account(self._least_s))
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
                del self._accounts[key]

    async def _acquire(self, account: _Account) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        account.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # granted at the same moment
                self._release()
            raise

    def _release(self) -> None:
        while waiting := [account for account in self._accounts.values() if account.waiting]:
            account = min(waiting, key=lambda account: account.used_s)
            turn = account.waiting.popleft()
            if not turn.done():  # not cancelled meanwhile
                self._least_s = max(self._least_s, account.used_s)
                turn.set_result(None)
                return
        self._free += 1


class ByteQuota:
    """A limited number of bytes, granted first come, first served."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free = max_bytes
        self._turn = asyncio.Lock()  # serves in order
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, number: int) -> AsyncIterator[None]:
        """Waits for `number` bytes, or all if that is fewer, and holds them while inside."""
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
    """Counts what is in flight, in all and by tenant, and refuses what exceeds a limit.

    If nothing else is in flight, any amount is admitted: single requests have limits of their own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._held_by: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._held

    def check(
        self,
        more: int,
        tenant: str | None,
        *,
        in_all: str,
        of_key: str,
        limit: str | None = None,
        held: int = 0,
        part: float = 1.0,
    ) -> None:
        """Raises Overloaded with the message `in_all`, or RateLimited with `of_key`, where there is
        a `refusal`; `limit` is its name in the metrics."""
        match self.refusal(more, tenant, held=held, part=part):
            case "all":
                raise Overloaded(in_all, retry_after_s=1, limit=limit)
            case "tenant":
                raise RateLimited(of_key, retry_after_s=1, limit=limit)

    def refusal(
        self, more: int, tenant: str | None, *, held: int = 0, part: float = 1.0
    ) -> Literal["all", "tenant"] | None:
        """Whose limit `more` would exceed, if any. The request already holds `held`, and may use
        up to `part` of each limit.
        """
        if self._held > held and self._held + more > part * self._limit:
            return "all"
        if tenant is not None:
            own = self._held_by[tenant]
            if own > held and own + more > part * TENANT_PART * self._limit:
                return "tenant"
        return None

    def add(self, number: int, tenant: str | None) -> None:
        """Adds `number`, which may be negative, to both counts."""
        self._held += number
        if tenant is not None:
            self._held_by[tenant] += number
            if not self._held_by[tenant]:
                del self._held_by[tenant]


def equal_part(number: int, tenants: int) -> int:
    """An equal part of `number` for each of `tenants`, but at least one."""
    return max(1, number // tenants)
