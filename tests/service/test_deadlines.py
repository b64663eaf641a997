"""A request ends when its time is up, with what it has by then."""

import asyncio
from typing import Any

import pytest

from deployments.errors import DeadlineExceeded, InvalidItem
from deployments.items import UrlItem
from deployments.service.stacks import STACK_ITEMS
from deployments.wire import StackVectors
from tests.fakes import FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, HeldModel
from tests.service.requests import embed, errors, settled


async def test_the_time_limit_ends_a_request_just_before_its_time_is_up() -> None:
    opened = service(limits={"request_timeout_s": 0.2})
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadlines = []

    async def wait() -> None:
        async with opened.time_limit() as deadline:
            deadlines.append(deadline)
            await asyncio.sleep(30)

    with pytest.raises(DeadlineExceeded, match=r"longer than 0\.2 s"):
        await wait()
    assert deadlines == [pytest.approx(began + 0.97 * 0.2, abs=0.01)]
    assert 0.98 * 0.2 <= loop.time() - began < 5


async def test_the_time_limit_leaves_a_quick_request_alone() -> None:
    opened = service(limits={"request_timeout_s": 0.1})
    async with opened.time_limit():
        await asyncio.sleep(0)
    await asyncio.sleep(0.12)


async def test_the_time_limit_passes_on_timeouts_that_are_not_its_own() -> None:
    with pytest.raises(TimeoutError, match="a socket's"):
        async with service().time_limit():
            raise TimeoutError("a socket's")


async def test_the_time_limit_passes_on_other_errors_as_they_are() -> None:
    with pytest.raises(InvalidItem, match="no item"):
        async with service().time_limit():
            raise InvalidItem("no item")


async def test_a_caller_who_leaves_is_cancelled_and_not_timed_out() -> None:
    async def wait() -> None:
        async with service().time_limit():
            await asyncio.sleep(30)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_whose_time_is_up_leaves_nothing_behind(images: Images) -> None:
    model = HeldModel()
    before = asyncio.all_tasks()
    opened = service(model, limits={"request_timeout_s": 0.3})
    with pytest.raises(DeadlineExceeded):
        async with opened.time_limit() as deadline:
            await embed(opened, images(4), deadline)
    await settled(before)
    assert all(call.cancelled() for call in model.calls)


async def test_the_model_is_told_the_deadline(images: Images) -> None:
    class PunctualModel(FakeModel):
        deadlines: tuple[float, ...] = ()

        async def embed(self, *call: Any) -> StackVectors:
            self.deadlines += (call[2],)
            return await super().embed(*call)

    model = PunctualModel()
    await embed(service(model), images(STACK_ITEMS + 1), 1e9)
    assert model.deadlines == (1e9, 1e9)


async def test_an_item_that_is_not_loaded_in_time_is_reported_and_the_rest_answered(
    images: Images,
) -> None:
    class SilentFetcher(FakeFetcher):
        async def download(self, url: str, **_: Any) -> bytes:
            await asyncio.sleep(60)
            return b""

    opened = service(fetcher=SilentFetcher(), limits={"request_timeout_s": 1.0})  # type: ignore[arg-type]
    items = [*images(1), UrlItem("https://example.org/a.jpg"), *images(2)[1:]]
    async with opened.time_limit() as deadline:
        embedded = await embed(opened, items, deadline, on_error="report")
    first, late, last = errors(embedded)
    assert first is None
    assert last is None
    assert isinstance(late, DeadlineExceeded)
