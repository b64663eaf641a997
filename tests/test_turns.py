"""Turns, with tasks that wait for them."""

import asyncio

from deployments.turns import Turns


async def take(turns: Turns, who: str, log: list[str], may_end: asyncio.Event) -> None:
    async with turns.of(who):
        log.append(who)
        await may_end.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_has_much_waiting_gets_no_more_turns_than_others() -> None:
    turns, log, may_end = Turns(1), [], asyncio.Event()
    may_end.set()
    names = ["a", "a", "a", "a", "b", "b", "c"]
    async with turns.of("first"):
        tasks = [asyncio.create_task(take(turns, name, log, may_end)) for name in names]
        await settle()
        assert log == []
    await asyncio.gather(*tasks)
    assert log == ["a", "b", "c", "a", "b", "a", "a"]


async def test_so_many_are_inside_at_a_time() -> None:
    turns, log, may_end = Turns(2), [], asyncio.Event()
    tasks = [asyncio.create_task(take(turns, "a", log, may_end)) for _ in range(5)]
    await settle()
    assert len(log) == 2
    may_end.set()
    await asyncio.gather(*tasks)
    assert len(log) == 5


async def test_who_leaves_takes_no_turn_with_him() -> None:
    turns, log, may_end = Turns(1), [], asyncio.Event()
    tasks = [asyncio.create_task(take(turns, name, log, may_end)) for name in "abcd"]
    await settle()
    tasks[1].cancel()  # while it waits
    may_end.set()
    await settle()
    tasks[2].cancel()  # over by now
    await asyncio.wait(tasks)
    assert log == ["a", "c", "d"]
    async with asyncio.timeout(1), turns.of("e"):
        pass


async def test_a_turn_that_comes_as_one_leaves_goes_to_the_next() -> None:
    turns, log, may_end = Turns(1), [], asyncio.Event()
    may_end.set()
    async with turns.of("first"):
        leaver = asyncio.create_task(take(turns, "a", log, may_end))
        stayer = asyncio.create_task(take(turns, "b", log, may_end))
        await settle()
    leaver.cancel()  # has its turn, and has not run yet
    await asyncio.wait([leaver])
    async with asyncio.timeout(1):
        await stayer
    assert log == ["b"]
