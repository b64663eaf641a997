"""Turns, with tasks that wait for them."""

import asyncio

from deployments.turns import Turns


async def take(turns: Turns, who: str, log: list[str], seconds: float = 0.01) -> None:
    async with turns.of(who):
        log.append(who)
        await asyncio.sleep(seconds)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_has_much_waiting_gets_no_more_time_than_others() -> None:
    turns, log = Turns(1), list[str]()
    async with turns.of("first"):
        names = ["a", "a", "a", "a", "b", "b", "c"]
        tasks = [asyncio.create_task(take(turns, name, log)) for name in names]
        await settle()
        assert log == []
    await asyncio.gather(*tasks)
    assert sorted(log[:3]) == ["a", "b", "c"]
    assert sorted(log[3:5]) == ["a", "b"]
    assert log[5:] == ["a", "a"]


async def test_who_takes_long_waits_until_others_have_had_as_much() -> None:
    turns, log = Turns(1), list[str]()
    slow = [asyncio.create_task(take(turns, "slow", log, 0.2)) for _ in range(3)]
    await settle()
    quick = [asyncio.create_task(take(turns, "quick", log, 0.005)) for _ in range(5)]
    await asyncio.gather(*slow, *quick)
    assert log == ["slow", *["quick"] * 5, "slow", "slow"]


async def test_so_many_are_inside_at_a_time() -> None:
    turns, log = Turns(2), list[str]()
    tasks = [asyncio.create_task(take(turns, "a", log, 0.05)) for _ in range(5)]
    await settle()
    assert len(log) == 2
    await asyncio.gather(*tasks)
    assert len(log) == 5
    assert not turns._parties


async def test_who_leaves_takes_no_turn_with_him() -> None:
    turns, log = Turns(1), list[str]()
    tasks = [asyncio.create_task(take(turns, name, log)) for name in "abcd"]
    await settle()
    tasks[1].cancel()  # while it waits
    await asyncio.sleep(0.015)
    tasks[2].cancel()  # inside
    await asyncio.wait(tasks)
    assert log == ["a", "c", "d"]
    async with asyncio.timeout(1), turns.of("e"):
        pass
    assert not turns._parties


async def test_a_turn_that_comes_as_one_leaves_goes_to_the_next() -> None:
    turns, log = Turns(1), list[str]()
    async with turns.of("first"):
        leaver = asyncio.create_task(take(turns, "a", log))
        stayer = asyncio.create_task(take(turns, "b", log))
        await settle()
    leaver.cancel()  # has its turn, and has not run yet
    await asyncio.wait([leaver])
    async with asyncio.timeout(1):
        await stayer
    assert log == ["b"]


async def test_all_who_wait_may_leave_at_once() -> None:
    turns, log = Turns(1), list[str]()
    tasks = [asyncio.create_task(take(turns, "a", log, 5)) for _ in range(4)]
    await settle()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    async with asyncio.timeout(1), turns.of("b"):
        pass
