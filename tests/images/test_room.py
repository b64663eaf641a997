import asyncio
from contextlib import AsyncExitStack

import pytest

from deployments.images.room import Room


async def entered(room: Room, number: int) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(room.of(number))
    return stack


async def test_there_is_so_much_room_and_the_next_one_waits() -> None:
    room = Room(100)
    first, second = await entered(room, 60), await entered(room, 40)
    third = asyncio.create_task(entered(room, 50))
    await asyncio.sleep(0.01)
    assert not third.done()
    await second.aclose()
    await asyncio.sleep(0.01)
    assert not third.done()
    await first.aclose()
    await (await third).aclose()


async def test_a_small_one_does_not_pass_a_large_one() -> None:
    room = Room(100)
    first = await entered(room, 60)
    large = asyncio.create_task(entered(room, 100))
    await asyncio.sleep(0)
    small = asyncio.create_task(entered(room, 1))
    await asyncio.sleep(0.01)
    assert not small.done()
    await first.aclose()
    await (await large).aclose()
    await (await small).aclose()


async def test_more_than_there_is_gets_all() -> None:
    room = Room(100)
    async with room.of(1000):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), room.of(1):
                pass
    async with room.of(100):
        pass


async def test_who_gives_up_waiting_takes_nothing() -> None:
    room = Room(100)
    async with room.of(100):
        waiting = [asyncio.create_task(entered(room, 100)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    async with asyncio.timeout(1), room.of(100):
        pass
