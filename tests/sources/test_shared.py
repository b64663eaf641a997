"""Callers who want the same URL at the same moment share one download."""

import asyncio
import random
from contextlib import suppress

import pytest

from deployments.errors import FetchBadGateway, FetchFailed
from deployments.fairness import ByteQuota
from deployments.sources.fetch import Fetcher
from deployments.sources.shared import SharedDownloads
from tests.sources.origins import Origin, answer


class Gate:
    """An answer that the origin withholds until it is opened."""

    def __init__(self, answer: bytes) -> None:
        self.open = asyncio.Event()
        self.answer = answer
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = {asyncio.ensure_future(self.open.wait()), asyncio.ensure_future(reader.read())}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self.open.is_set():
            self.left.set()
        writer.write(self.answer)


@pytest.fixture
def gate(origin: Origin) -> Gate:
    origin.answers["/slow"] = gate = Gate(answer(b"pixels"))
    return gate


@pytest.fixture
async def quota() -> ByteQuota:
    return ByteQuota(100)


@pytest.fixture
async def downloads(fetcher: Fetcher, quota: ByteQuota) -> SharedDownloads:
    return SharedDownloads(fetcher, quota)


async def get(downloads: SharedDownloads, url: str, own: ByteQuota | None = None) -> bytes:
    async with downloads.body(url, own or ByteQuota(100)) as body:
        return body


async def has_room(quota: ByteQuota) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05), quota.hold(100):
            return True
    return False


async def test_ten_callers_at_once_are_one_request(
    downloads: SharedDownloads, origin: Origin, gate: Gate
) -> None:
    callers = [asyncio.create_task(get(downloads, origin.url("/slow"))) for _ in range(10)]
    await origin.asked.wait()
    gate.open.set()
    assert await asyncio.gather(*callers) == [b"pixels"] * 10
    assert len(origin.requests) == 1


async def test_a_later_caller_asks_again(downloads: SharedDownloads, origin: Origin) -> None:
    async with downloads.body(origin.url(), ByteQuota(100)):
        origin.answers["/"] = answer(b"newer")
        assert await get(downloads, origin.url()) == b"newer"


async def test_all_callers_get_the_error_of_the_one_request(
    downloads: SharedDownloads, origin: Origin
) -> None:
    origin.answers["/slow"] = gate = Gate(answer(b"", "404 Not Found"))
    callers = [asyncio.create_task(get(downloads, origin.url("/slow"))) for _ in range(3)]
    await origin.asked.wait()
    gate.open.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(error) for error in errors] == [FetchFailed] * 3
    assert len(origin.requests) == 1


async def test_the_download_goes_on_when_the_caller_who_began_it_leaves(
    downloads: SharedDownloads, origin: Origin, gate: Gate
) -> None:
    first = asyncio.create_task(get(downloads, origin.url("/slow")))
    await origin.asked.wait()
    second = asyncio.create_task(get(downloads, origin.url("/slow")))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    gate.open.set()
    assert await second == b"pixels"
    assert len(origin.requests) == 1


async def test_the_download_ends_when_all_callers_have_left(
    downloads: SharedDownloads, origin: Origin, gate: Gate
) -> None:
    callers = [asyncio.create_task(get(downloads, origin.url("/slow"))) for _ in range(2)]
    await origin.asked.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    await gate.left.wait()
    gate.open.set()
    assert await get(downloads, origin.url("/slow")) == b"pixels"


async def test_a_body_counts_once_and_until_the_last_caller_is_done(
    downloads: SharedDownloads, origin: Origin, gate: Gate, quota: ByteQuota
) -> None:
    origin.answers["/slow"] = gate = Gate(answer(bytes(80)))
    done = [asyncio.Event(), asyncio.Event()]
    holding = asyncio.Barrier(3)

    async def hold(until_done: asyncio.Event) -> None:
        async with downloads.body(origin.url("/slow"), ByteQuota(100)):
            await holding.wait()
            await until_done.wait()

    callers = [asyncio.create_task(hold(event)) for event in done]
    await origin.asked.wait()
    gate.open.set()
    await holding.wait()
    for event, caller in zip(done, callers, strict=True):
        assert not await has_room(quota)
        event.set()
        await caller
    assert await has_room(quota)


async def test_many_requests_for_the_same_urls_do_not_lock_each_other_up(
    fetcher: Fetcher, origin: Origin
) -> None:
    downloads = SharedDownloads(fetcher, ByteQuota(40))
    urls = [origin.url(f"/{number}") for number in range(20)]
    for number in range(20):
        origin.answers[f"/{number}"] = answer(bytes(20))

    async def request(seed: int) -> None:
        own = ByteQuota(20)
        await asyncio.gather(
            *(get(downloads, url, own) for url in random.Random(seed).sample(urls, len(urls)))
        )

    async with asyncio.timeout(20):
        await asyncio.gather(*map(request, range(8)))


async def test_a_fetcher_that_is_closed_leaves_nobody_waiting(
    downloads: SharedDownloads, fetcher: Fetcher, origin: Origin, gate: Gate
) -> None:
    waiting = asyncio.create_task(get(downloads, origin.url("/slow")))
    await origin.asked.wait()
    (task,) = (task for task in asyncio.all_tasks() if "_run" in repr(task.get_coro()))
    task.cancel()
    with pytest.raises(FetchBadGateway):
        await waiting
    gate.open.set()
    assert await get(downloads, origin.url("/slow")) == b"pixels"
