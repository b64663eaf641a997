"""Coroutines side by side, for the stacks of one job."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from deployments.service.job import Job, Slot

T = TypeVar("T")

# Of one job: one stack in the model, one being decoded.
STACKS_IN_FLIGHT = 2


async def in_stacks(
    embed: Callable[[Job, Sequence[Slot]], Awaitable[None]],
    job: Job,
    slots: Sequence[Slot],
    most: int,
) -> None:
    """Calls `embed` on parts of `slots`, each of at most `most`, STACKS_IN_FLIGHT at a time."""
    semaphore = asyncio.Semaphore(STACKS_IN_FLIGHT)

    async def embed_in_turn(part: Sequence[Slot]) -> None:
        async with semaphore:
            await embed(job, part)

    starts = range(0, len(slots), most)
    await all_or_none([embed_in_turn(slots[start : start + most]) for start in starts])


async def all_or_none(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; when one raises, it is re-raised after the others have ended."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
