"""A failure, or a caller who leaves, ends what was begun and harms nothing else."""

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pytest

from deployments.errors import Internal, PathNotFound, Unavailable
from deployments.items import PathItem, UrlItem
from deployments.wire import StackVectors
from tests.fakes import FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, HeldModel
from tests.service.requests import embed, errors, settled


@pytest.mark.parametrize("on_error", ["fail", "report"])
async def test_an_error_of_the_model_fails_the_request_and_ends_its_other_stacks(
    images: Images, on_error: str
) -> None:
    model = HeldModel()
    before = asyncio.all_tasks()
    opened = service(model)
    task = asyncio.create_task(embed(opened, images(6), on_error=on_error))
    await model.taken(2)
    model.calls[1].set_exception(Unavailable("gone", retry_after_s=5))
    with pytest.raises(Unavailable, match="gone"):
        await task
    await settled(before)
    assert model.calls[0].cancelled()
    assert len(model.calls) == 2


async def test_two_errors_of_the_model_are_one_failure(images: Images) -> None:
    model = HeldModel()
    before = asyncio.all_tasks()
    task = asyncio.create_task(embed(service(model), images(4)))
    await model.taken(2)
    for call in model.calls:
        call.set_exception(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await task
    await settled(before)


async def test_a_caller_who_leaves_ends_all_stacks(images: Images) -> None:
    model = HeldModel()
    before = asyncio.all_tasks()
    task = asyncio.create_task(embed(service(model), images(6)))
    await model.taken(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(before)
    assert [call.cancelled() for call in model.calls] == [True, True]


async def test_a_caller_who_leaves_ends_the_downloads(images: Images) -> None:
    class SlowFetcher(FakeFetcher):
        ended = 0

        async def download(self, url: str, *, reserve: Any) -> bytes:
            self.downloads.append(url)
            try:
                return await asyncio.Future()
            finally:
                self.ended += 1

    fetcher = SlowFetcher()
    before = asyncio.all_tasks()
    opened = service(fetcher=fetcher)  # type: ignore[arg-type]
    items = [UrlItem(f"https://{i}") for i in range(3)]
    task = asyncio.create_task(embed(opened, items))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(fetcher.downloads) == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(before)
    assert fetcher.ended == 3


async def test_a_bug_in_one_item_is_an_internal_error_of_that_item_alone(images: Images) -> None:
    fetcher = FakeFetcher(odd=ZeroDivisionError("a secret"))
    opened = service(fetcher=fetcher)  # type: ignore[arg-type]
    embedded = await embed(opened, [UrlItem("https://odd"), *images(1)], on_error="report")
    bad, good = errors(embedded)
    assert isinstance(bad, Internal)
    assert "secret" not in str(bad)
    assert good is None


async def test_a_vector_that_is_not_finite_is_an_error_of_its_item_alone(images: Images) -> None:
    class NanModel(FakeModel):
        async def embed(self, *call: Any) -> StackVectors:
            answer = await super().embed(*call)
            answer.vectors[1, 3] = np.nan
            return answer

    embedded = await embed(service(NanModel()), images(3), on_error="report")
    assert [type(e) for e in errors(embedded)] == [type(None), Internal, type(None)]


async def test_a_failed_item_does_not_keep_its_request_in_memory(images: Images) -> None:
    class Marked(str):
        pass

    name = Marked("missing.jpg")
    marked = weakref.ref(name)
    gc.collect()
    gc.disable()
    try:
        embedded = await embed(service(), [PathItem(name), *images(1)], on_error="report")
        del name
        await asyncio.sleep(0)
        assert marked() is None
    finally:
        gc.enable()
    assert isinstance(errors(embedded)[0], PathNotFound)
