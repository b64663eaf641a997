"""The queue and the quotas let in what they should, and no tenant takes all there is."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import CorruptImage, DeadlineExceeded, InvalidItem, Overloaded, Unavailable
from deployments.items import Parsed, PathItem, UrlItem
from deployments.service.embedding import EmbeddingService
from deployments.settings import MIB
from tests.conftest import Jpeg
from tests.fakes import service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, HeldModel
from tests.service.requests import CORRUPT, embed, errors

# A request larger than the whole queue is admitted only if nothing waits.


async def test_a_request_larger_than_the_queue_gets_in_when_nothing_waits(images: Images) -> None:
    opened = service(limits={"max_queued_items": 1})
    assert len((await embed(opened, images(5))).rows) == 5


async def test_a_request_that_does_not_fit_beside_those_waiting_is_refused(images: Images) -> None:
    model = HeldModel()
    opened = service(model, limits={"max_queued_items": 3})
    tasks = [asyncio.create_task(embed(opened, images(2)))]
    await model.taken(2)
    with pytest.raises(Overloaded) as caught:
        await embed(opened, images(2))
    assert caught.value.retry_after_s == 1
    tasks.append(asyncio.create_task(embed(opened, images(1, first=2))))
    await model.taken(3)
    with pytest.raises(Overloaded):
        await embed(opened, images(1))
    for call in model.calls:
        call.set_result(None)
    await asyncio.gather(*tasks)


async def succeed(opened: EmbeddingService, model: HeldModel, items: list[Parsed]) -> None:
    task = asyncio.create_task(embed(opened, items))
    await model.taken(2)
    for call in model.calls:
        call.set_result(None)
    await task


async def fail(opened: EmbeddingService, model: HeldModel, items: list[Parsed]) -> None:
    task = asyncio.create_task(embed(opened, items))
    await model.taken(2)
    model.calls[0].set_exception(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await task


async def have_bad_items(opened: EmbeddingService, model: HeldModel, items: list[Parsed]) -> None:
    with pytest.raises(CorruptImage):
        await embed(opened, [CORRUPT, *items])


async def leave(opened: EmbeddingService, model: HeldModel, items: list[Parsed]) -> None:
    task = asyncio.create_task(embed(opened, items))
    await model.taken(2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def run_out_of_time(opened: EmbeddingService, model: HeldModel, items: list[Parsed]) -> None:
    with pytest.raises(DeadlineExceeded):
        async with opened.time_limit() as deadline:
            await embed(opened, items, deadline)


@pytest.mark.parametrize("end", [succeed, fail, have_bad_items, leave, run_out_of_time])
async def test_a_request_leaves_the_queue_however_it_ends(
    images: Images,
    end: Callable[[EmbeddingService, HeldModel, list[Parsed]], Awaitable[None]],
) -> None:
    model = HeldModel()
    opened = service(model, limits={"max_queued_items": 1, "request_timeout_s": 1})
    await end(opened, model, images(2))
    again = asyncio.create_task(embed(opened, images(2, first=2)))
    taken = len(model.calls)
    await model.taken(taken + 2)  # not refused
    for call in model.calls[taken:]:
        call.set_result(None)
    assert len((await again).rows) == 2


async def test_items_that_are_errors_already_take_no_place_in_the_queue(images: Images) -> None:
    model = HeldModel()
    opened = service(model, limits={"max_queued_items": 3})
    broken = [InvalidItem("no item")] * 50
    waiting = asyncio.create_task(embed(opened, [*broken, *images(1)], on_error="report"))
    await model.taken(1)
    other = asyncio.create_task(embed(opened, images(1, first=5)))
    await model.taken(2)
    for call in model.calls:
        call.set_result(None)
    assert errors(await other) == [None]
    await waiting


# Quotas


async def test_all_requests_of_one_tenant_share_its_limits(images: Images) -> None:
    opened = service()
    assert opened._limits("a") is opened._limits("a")
    assert opened._limits("a") is not opened._limits("b")
    assert opened._limits(None) is not opened._limits(None)


async def test_no_tenant_gets_the_whole_byte_quota(
    images: Images, jpeg: Jpeg, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    reserved = []

    class TricklingFetcher(FakeFetcher):
        async def download(self, url: str, *, reserve: Any) -> bytes:
            await reserve(20 * MIB)
            reserved.append(url)
            await asyncio.sleep(60)
            return b""

    fetcher: Any = TricklingFetcher()
    opened = service(fetcher=fetcher, roots=[tmp_path], limits={"max_inflight_bytes": 100 * MIB})
    urls = [UrlItem(f"https://example.org/{i}.jpg") for i in range(10)]
    greedy = asyncio.create_task(embed(opened, urls, tenant="a"))
    await asyncio.sleep(0.1)
    other = await asyncio.wait_for(embed(opened, [PathItem("a.jpg")], tenant="b"), 5)
    assert errors(other) == [None]
    assert len(reserved) == 2
    greedy.cancel()
