"""Fair semaphores, byte quotas and counts, with tasks that wait for them."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from deployments.fairness import ByteQuota, FairSemaphore, TenantCount


async def take(turns: FairSemaphore, tenant: str, log: list[str], seconds: float = 0.01) -> None:
    async with turns.turn(tenant):
        log.append(tenant)
        await asyncio.sleep(seconds)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_tenant_with_many_tasks_waiting_gets_no_more_time_than_others() -> None:
    turns, log = FairSemaphore(1), list[str]()
    async with turns.turn("first"):
        names = ["a", "a", "a", "a", "b", "b", "c"]
        tasks = [asyncio.create_task(take(turns, name, log)) for name in names]
        await settle()
        assert log == []
    await asyncio.gather(*tasks)
    assert sorted(log[:3]) == ["a", "b", "c"]
    assert sorted(log[3:5]) == ["a", "b"]
    assert log[5:] == ["a", "a"]


async def test_a_tenant_that_takes_long_waits_until_others_have_had_as_much() -> None:
    turns, log = FairSemaphore(1), list[str]()
    slow = [asyncio.create_task(take(turns, "slow", log, 0.2)) for _ in range(3)]
    await settle()
    quick = [asyncio.create_task(take(turns, "quick", log, 0.005)) for _ in range(5)]
    await asyncio.gather(*slow, *quick)
    assert log == ["slow", *["quick"] * 5, "slow", "slow"]


async def test_no_more_tasks_than_the_limit_have_a_turn_at_a_time() -> None:
    turns, log = FairSemaphore(2), list[str]()
    tasks = [asyncio.create_task(take(turns, "a", log, 0.05)) for _ in range(5)]
    await settle()
    assert len(log) == 2
    await asyncio.gather(*tasks)
    assert len(log) == 5
    assert not turns._accounts


async def test_a_cancelled_task_takes_no_turn_with_it() -> None:
    turns, log = FairSemaphore(1), list[str]()
    tasks = [asyncio.create_task(take(turns, name, log)) for name in "abcd"]
    await settle()
    tasks[1].cancel()  # while it waits
    await asyncio.sleep(0.015)
    tasks[2].cancel()  # inside
    await asyncio.wait(tasks)
    assert log == ["a", "c", "d"]
    async with asyncio.timeout(1), turns.turn("e"):
        pass
    assert not turns._accounts


async def test_a_turn_given_to_a_task_just_cancelled_goes_to_the_next() -> None:
    turns, log = FairSemaphore(1), list[str]()
    async with turns.turn("first"):
        leaver = asyncio.create_task(take(turns, "a", log))
        stayer = asyncio.create_task(take(turns, "b", log))
        await settle()
    leaver.cancel()  # has its turn, and has not run yet
    await asyncio.wait([leaver])
    async with asyncio.timeout(1):
        await stayer
    assert log == ["b"]


async def test_all_waiting_tasks_may_be_cancelled_at_once() -> None:
    turns, log = FairSemaphore(1), list[str]()
    tasks = [asyncio.create_task(take(turns, "a", log, 5)) for _ in range(4)]
    await settle()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    async with asyncio.timeout(1), turns.turn("b"):
        pass


async def entered(quota: ByteQuota, number: int) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(quota.hold(number))
    return stack


async def test_a_hold_that_exceeds_the_quota_waits_until_enough_is_free() -> None:
    quota = ByteQuota(100)
    first, second = await entered(quota, 60), await entered(quota, 40)
    third = asyncio.create_task(entered(quota, 50))
    await asyncio.sleep(0.01)
    assert not third.done()
    await second.aclose()
    await asyncio.sleep(0.01)
    assert not third.done()
    await first.aclose()
    await (await third).aclose()


async def test_a_small_hold_does_not_overtake_a_large_one() -> None:
    quota = ByteQuota(100)
    first = await entered(quota, 60)
    large = asyncio.create_task(entered(quota, 100))
    await asyncio.sleep(0)
    small = asyncio.create_task(entered(quota, 1))
    await asyncio.sleep(0.01)
    assert not small.done()
    await first.aclose()
    await (await large).aclose()
    await (await small).aclose()


async def test_a_hold_larger_than_the_quota_gets_all_of_it() -> None:
    quota = ByteQuota(100)
    async with quota.hold(1000):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), quota.hold(1):
                pass
    async with quota.hold(100):
        pass


async def test_a_task_cancelled_while_waiting_for_bytes_takes_none() -> None:
    quota = ByteQuota(100)
    async with quota.hold(100):
        waiting = [asyncio.create_task(entered(quota, 100)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    async with asyncio.timeout(1), quota.hold(100):
        pass


def test_a_count_refuses_what_does_not_fit_unless_it_is_empty() -> None:
    count = TenantCount(10)
    assert count.refusal(1000, None) is None
    count.add(8, None)
    assert count.refusal(2, None) is None
    assert count.refusal(3, None) == "all"


def test_a_tenant_has_at_most_half_of_the_count() -> None:
    count = TenantCount(10)
    count.add(4, "a")
    assert count.refusal(1, "a") is None
    assert count.refusal(2, "a") == "tenant"
    assert count.refusal(6, "b") is None
    assert count.refusal(7, "b") == "all"


def test_what_is_given_back_may_be_used_again() -> None:
    count = TenantCount(10)
    count.add(5, "a")
    count.add(-5, "a")
    count.add(1, "b")
    assert count.refusal(9, "a") is None


def test_a_request_that_is_alone_may_exceed_the_count() -> None:
    count = TenantCount(10)
    count.add(9, "a")
    assert count.refusal(5, "a", held=9) is None
    count.add(1, "b")
    assert count.refusal(5, "a", held=9) == "all"


def test_a_part_of_the_count_is_kept_free() -> None:
    count = TenantCount(100)
    count.add(10, "a")
    assert count.refusal(80, None, part=0.875) == "all"
    assert count.refusal(35, "a", part=0.875) == "tenant"
    assert count.refusal(33, "a", part=0.875) is None
