"""One request's way through the real service, with a fake model and a fake fetcher."""

import asyncio
import base64
import gc
import io
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.errors import (
    BadRequest,
    CorruptImage,
    DeadlineExceeded,
    FetchFailed,
    Internal,
    InvalidItem,
    Overloaded,
    PathNotFound,
    RaylensError,
    TextTooLong,
    TextUnsupported,
    TooManyItems,
    Unavailable,
)
from deployments.items import Base64Item, BytesItem, Parsed, PathItem, TextItem, UrlItem
from deployments.pixels.workers import TakesLongError
from deployments.service import stacks
from deployments.service.embedding import Embedded, EmbeddingService
from deployments.service.job import Context, ItemGroup, Options
from deployments.service.loader import ImageLoader
from deployments.service.stacks import STACK_ITEMS, STACKS_IN_FLIGHT
from deployments.settings import MIB, Settings
from deployments.sources.files import ImageRoots
from deployments.wire import Pixels, StackVectors
from tests.fakes import CARD, TEXT, FakeModel, InProcess, service

Jpeg = Callable[..., bytes]

CORRUPT = BytesItem(b"\xff\xd8\xff\xe0 broken off")
IMAGE_BYTES = 8 * 8 * 3  # of the fake model


class SmallStacksModel(FakeModel):
    """Takes at most `images` at once."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.stack_bytes = images * IMAGE_BYTES + 1


class HeldModel(FakeModel):
    """Takes one image at a time and holds its answer back until it is told how it ends."""

    stack_bytes = IMAGE_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[asyncio.Future[None]] = []
        self._arrival = asyncio.Event()

    async def embed(
        self, stack: Pixels, deadline: float, tenant: str | None = None
    ) -> StackVectors:
        call = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        self._arrival.set()
        await call
        return await super().embed(stack, deadline)

    async def taken(self, number: int) -> None:
        """Returns when `number` calls have arrived, which takes some decoding."""
        async with asyncio.timeout(10):
            while len(self.calls) < number:
                self._arrival.clear()
                await self._arrival.wait()


class FakeFetcher:
    """Has the bytes, or the error, of each URL that it knows."""

    def __init__(self, **contents: bytes | Exception) -> None:
        self.contents = contents
        self.downloads: list[str] = []

    async def download(self, url: str, *, reserve: Any) -> bytes:
        self.downloads.append(url)
        content = self.contents[url.removeprefix("https://")]
        if isinstance(content, Exception):
            raise content
        return content


@pytest.fixture
def images(jpeg: Jpeg) -> Callable[..., list[Parsed]]:
    """Makes distinct images; small ones, for speed."""

    def make(number: int, first: int = 0) -> list[Parsed]:
        return [BytesItem(jpeg(seed, (16, 16))) for seed in range(first, first + number)]

    return make


Images = Callable[..., list[Parsed]]


async def embed(
    opened: EmbeddingService,
    items: Sequence[Parsed],
    deadline: float | None = None,
    tenant: str | None = None,
    **options: Any,
) -> Embedded:
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + 10
    context = Context(opened.models[0], deadline, tenant)
    return await opened.embed([ItemGroup("input", items)], context, Options(**options))


async def settled(before: set[asyncio.Task[Any]]) -> None:
    """Fails unless all tasks but those `before` are over within a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def vectors(embedded: Embedded) -> np.ndarray[Any, Any]:
    for row in embedded.rows:
        if isinstance(row, RaylensError):
            raise row
    return np.stack(embedded.rows)  # type: ignore[arg-type]


def errors(embedded: Embedded) -> list[RaylensError | None]:
    return [row if isinstance(row, RaylensError) else None for row in embedded.rows]


# Stacks


@pytest.mark.parametrize("number", [1, STACK_ITEMS, STACK_ITEMS + 1, 2 * STACK_ITEMS + 3])
async def test_a_request_is_cut_into_stacks_and_put_together_in_order(
    images: Images, number: int
) -> None:
    model = FakeModel()
    items = images(number)
    together = vectors(await embed(service(model), items))
    full, rest = divmod(number, STACK_ITEMS)
    expected = [STACK_ITEMS] * full + [rest] * bool(rest)
    assert sorted(map(len, model.stacks), reverse=True) == expected
    opened = service()
    for index in (0, number // 2, number - 1):
        alone = vectors(await embed(opened, [items[index]]))
        assert together[index] == pytest.approx(alone[0])


@pytest.mark.parametrize(("fit", "stacks"), [(3, [3, 3, 1]), (1, [1] * 7), (0, [1] * 7)])
async def test_no_stack_is_larger_than_one_call_carries(
    images: Images, fit: int, stacks: list[int]
) -> None:
    model = SmallStacksModel(fit)
    items = images(7)
    got = vectors(await embed(service(model), items))
    assert sorted(map(len, model.stacks), reverse=True) == stacks
    assert got == pytest.approx(vectors(await embed(service(), items)))


async def test_a_request_has_few_stacks_under_way_at_a_time(images: Images) -> None:
    model = HeldModel()
    task = asyncio.create_task(embed(service(model), images(6)))
    for number in range(1, 7):
        await model.taken(min(number + STACKS_IN_FLIGHT - 1, 6))
        await asyncio.sleep(0.01)
        assert len(model.calls) == min(number + STACKS_IN_FLIGHT - 1, 6)
        model.calls[number - 1].set_result(None)
    assert len((await task).rows) == 6


async def test_the_pixels_of_a_bad_item_are_left_out_of_its_stack(images: Images) -> None:
    model = FakeModel()
    items = images(3)
    items.insert(1, CORRUPT)
    embedded = await embed(service(model), items, on_error="report")
    assert [len(stack) for stack in model.stacks] == [3]
    assert [type(error) for error in errors(embedded)] == [
        type(None),
        CorruptImage,
        type(None),
        type(None),
    ]
    good = vectors(await embed(service(), images(3)))
    rows = [row for row in embedded.rows if not isinstance(row, RaylensError)]
    assert np.stack(rows) == pytest.approx(good)


async def test_a_request_that_fails_anyway_does_not_reach_the_model(images: Images) -> None:
    model = FakeModel()
    with pytest.raises(CorruptImage) as caught:
        await embed(service(model), [*images(2), CORRUPT])
    assert caught.value.param == "input[2]"
    assert [(index, type(error)) for index, error in caught.value.items] == [(2, CorruptImage)]
    assert not model.stacks


async def test_more_items_than_allowed_are_refused_as_a_whole(images: Images) -> None:
    with pytest.raises(TooManyItems, match=r"3 items .* 2 "):
        await embed(service(limits={"max_items": 2}), images(3))


# Failure and cancellation


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
        async def embed(
            self, stack: Pixels, deadline: float, tenant: str | None = None
        ) -> StackVectors:
            answer = await super().embed(stack, deadline)
            answer.vectors[1, 3] = np.nan
            return answer

    embedded = await embed(service(NanModel()), images(3), on_error="report")
    assert [type(e) for e in errors(embedded)] == [type(None), Internal, type(None)]


# Time


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


async def test_the_time_limit_leaves_what_is_quick_enough_alone() -> None:
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


async def test_the_time_limit_is_not_what_a_leaving_caller_gets() -> None:
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

        async def embed(
            self, stack: Pixels, deadline: float, tenant: str | None = None
        ) -> StackVectors:
            self.deadlines += (deadline,)
            return await super().embed(stack, deadline)

    model = PunctualModel()
    await embed(service(model), images(STACK_ITEMS + 1), 1e9)
    assert model.deadlines == (1e9, 1e9)


# Duplicates


async def test_duplicates_reach_the_model_once_and_count_as_cached(images: Images) -> None:
    model = FakeModel()
    a, b = images(2)
    embedded = await embed(service(model), [a, b, a, a, b])
    assert sum(map(len, model.stacks)) == 2
    assert embedded.cached == 3
    rows = vectors(embedded)
    assert (rows[[2, 3, 4]] == rows[[0, 0, 1]]).all()
    assert (rows[0] != rows[1]).any()


async def test_duplicates_in_different_stacks_reach_the_model_once(images: Images) -> None:
    model = SmallStacksModel(1)
    items = images(3)
    embedded = await embed(service(model), [*items, *items])
    assert sum(map(len, model.stacks)) == 3
    assert embedded.cached == 3
    assert (vectors(embedded)[:3] == vectors(embedded)[3:]).all()


async def test_a_duplicates_vector_is_its_own(images: Images) -> None:
    (a,) = images(1)
    rows = (await embed(service(), [a, a], normalize=False)).rows
    assert not np.shares_memory(rows[0], rows[1])  # type: ignore[arg-type]


async def test_duplicates_of_a_bad_item_get_its_error_with_their_own_param() -> None:
    embedded = await embed(service(), [CORRUPT, CORRUPT, CORRUPT], on_error="report")
    bad = [error for error in errors(embedded) if error is not None]
    assert [type(error) for error in bad] == [CorruptImage] * 3
    assert [error.param for error in bad] == ["input[0]", "input[1]", "input[2]"]
    assert len({error.message for error in bad}) == 1
    assert embedded.cached == 0


async def test_a_failed_request_names_duplicates_among_its_bad_items(images: Images) -> None:
    with pytest.raises(CorruptImage) as caught:
        await embed(service(), [*images(1), CORRUPT, CORRUPT])
    assert caught.value.param == "input[1]"
    assert [(index, error.param) for index, error in caught.value.items] == [
        (1, "input[1]"),
        (2, "input[2]"),
    ]


async def test_bad_items_are_named_by_their_group_and_their_index_in_it(images: Images) -> None:
    opened = service()
    context = Context(opened.models[0], asyncio.get_running_loop().time() + 10)
    groups = [
        ItemGroup("query", images(1), is_list=False),
        ItemGroup("documents", [CORRUPT, *images(1), CORRUPT]),
        ItemGroup("labels", [CORRUPT], first=7),
    ]
    with pytest.raises(CorruptImage) as caught:
        await opened.embed(groups, context)
    named = [(index, error.param) for index, error in caught.value.items]
    assert named == [(0, "documents[0]"), (2, "documents[2]"), (0, "labels[7]")]


# Sources


async def test_the_same_bytes_by_url_and_as_base64_are_duplicates(jpeg: Jpeg) -> None:
    model = FakeModel()
    fetcher = FakeFetcher(cat=jpeg(1))
    opened = service(model, fetcher=fetcher)  # type: ignore[arg-type]
    items = [UrlItem("https://cat"), Base64Item(base64.b64encode(jpeg(1)).decode())]
    embedded = await embed(opened, items)
    assert fetcher.downloads == ["https://cat"]
    assert sum(map(len, model.stacks)) == 1
    assert embedded.cached == 1
    assert (vectors(embedded)[0] == vectors(embedded)[1]).all()


async def test_an_image_that_cannot_be_fetched_is_an_error_of_its_item(jpeg: Jpeg) -> None:
    fetcher = FakeFetcher(cat=jpeg(1), gone=FetchFailed("The origin said 404."))
    opened = service(fetcher=fetcher)  # type: ignore[arg-type]
    items = [UrlItem("https://gone"), UrlItem("https://cat")]
    bad, good = errors(await embed(opened, items, on_error="report"))
    assert isinstance(bad, FetchFailed)
    assert bad.param == "input[0]"
    assert good is None


async def test_text_is_refused_by_a_model_without_a_text_tower(images: Images) -> None:
    embedded = await embed(service(), [*images(1), TextItem("a cat")], on_error="report")
    _, bad = errors(embedded)
    assert isinstance(bad, TextUnsupported)
    assert bad.param == "input[1]"
    with pytest.raises(TextUnsupported):
        await embed(service(), [TextItem("")])


async def test_an_item_that_came_as_an_error_stays_that_error(images: Images) -> None:
    items = [InvalidItem("not an item"), *images(1)]
    bad, good = errors(await embed(service(), items, on_error="report"))
    assert isinstance(bad, InvalidItem)
    assert bad.param == "input[0]"
    assert good is None


# Metrics


async def test_each_item_is_counted_by_its_outcome(images: Images) -> None:
    counted: Counter[str] = Counter()
    items = [*images(2), images(1)[0], CORRUPT, CORRUPT, PathItem("x"), TextItem("x")]
    await embed(counting(counted), items, on_error="report")
    expected = {"ok": 3, "corrupt_image": 2, "path_not_found": 1, "text_unsupported": 1}
    assert +counted == Counter(expected)


async def test_the_bad_items_of_a_failed_request_are_counted(images: Images) -> None:
    counted: Counter[str] = Counter()
    with pytest.raises(PathNotFound):
        await embed(counting(counted), [*images(1), PathItem("x"), CORRUPT])
    assert +counted == Counter(path_not_found=1, corrupt_image=1)


def counting(counted: Counter[str]) -> EmbeddingService:
    def count(outcome: str, number: int) -> None:
        counted[outcome] += number

    loader = ImageLoader(
        Settings(),
        roots=ImageRoots([], max_bytes=1),
        fetcher=FakeFetcher(),  # type: ignore[arg-type]
        workers=InProcess(10_000_000),  # type: ignore[arg-type]
        threads=1,
    )
    return EmbeddingService(Settings(), models=[FakeModel()], loader=loader, count=count)


# Admission. A service that admits one item takes a larger request exactly if nothing waits.


async def test_a_request_larger_than_the_queue_gets_in_when_nothing_waits(images: Images) -> None:
    opened = service(limits={"max_queued_items": 1})
    assert len((await embed(opened, images(5))).rows) == 5


async def test_what_does_not_fit_beside_what_waits_is_refused(images: Images) -> None:
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
async def test_nothing_waits_any_more_after_a_request(
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


# The cache, and requests that want the same at the same time


async def test_what_was_embedded_before_does_not_reach_the_model(images: Images) -> None:
    model = FakeModel(text=TEXT)
    opened = service(model)
    items = [*images(2), TextItem("a #ff0000")]
    first = await embed(opened, items)
    second = await embed(opened, [*images(3), TextItem("a #ff0000")], normalize=False)
    assert (first.cached, second.cached) == (0, 3)
    assert first.tokens == second.tokens == 9
    assert [len(stack) for stack in model.stacks] == [2, 1]
    unit = vectors(second) / np.linalg.norm(vectors(second), axis=1, keepdims=True)
    assert unit[[0, 1, 3]] == pytest.approx(vectors(first))


async def test_a_setting_turns_the_cache_off(images: Images) -> None:
    model = FakeModel()
    opened = service(model, cache={"max_bytes": 0})
    for _ in range(2):
        embedded = await embed(opened, [*images(1), *images(1)])
        assert embedded.cached == 1  # within the request
    assert [len(stack) for stack in model.stacks] == [1, 1]


async def test_a_long_text_from_the_cache_is_told_or_refused_as_at_first() -> None:
    opened = service(FakeModel(text=TEXT))
    items = [TextItem("x" * 100)]
    for _ in range(2):
        embedded = await embed(opened, items)
        assert (embedded.truncated, embedded.tokens) == ({0}, TEXT.max_tokens)
    with pytest.raises(TextTooLong):
        await embed(opened, items, truncate=False)


async def one_after_the_other(
    model: HeldModel, images: Images
) -> tuple[asyncio.Task[Embedded], asyncio.Task[Embedded]]:
    """Two requests for the same image, of which the model has only seen the first."""
    opened = service(model)
    first = asyncio.create_task(embed(opened, images(1)))
    await model.taken(1)
    second = asyncio.create_task(embed(opened, images(1)))
    await asyncio.sleep(0.05)
    return first, second


async def test_the_same_image_in_two_requests_is_embedded_once(images: Images) -> None:
    model = HeldModel()
    first, second = await one_after_the_other(model, images)
    model.calls[0].set_result(None)
    answers = await asyncio.gather(first, second)
    assert len(model.calls) == 1
    assert [answer.cached for answer in answers] == [0, 1]
    assert vectors(answers[0]) == pytest.approx(vectors(answers[1]))


async def test_two_requests_with_the_same_images_in_turn_do_not_wait_for_each_other(
    images: Images,
) -> None:
    model = HeldModel()
    opened = service(model)
    a, b = images(2)
    first = asyncio.create_task(embed(opened, [a, b]))
    second = asyncio.create_task(embed(opened, [b, a]))
    async with asyncio.timeout(10):
        while not (first.done() and second.done()):
            for call in model.calls:
                if not call.done():
                    call.set_result(None)
            await asyncio.sleep(0.01)
    assert vectors(first.result()) == pytest.approx(vectors(second.result())[::-1])


@pytest.mark.parametrize("end", ["the caller leaves", "the model fails"])
async def test_who_waits_for_another_request_that_fails_embeds_for_himself(
    images: Images, end: str
) -> None:
    model = HeldModel()
    first, second = await one_after_the_other(model, images)
    if end == "the caller leaves":
        first.cancel()
    else:
        model.calls[0].set_exception(Unavailable("gone"))
    await model.taken(2)
    model.calls[1].set_result(None)
    assert (await second).cached == 0
    await asyncio.wait([first])


async def test_who_leaves_while_waiting_for_another_request_does_it_no_harm(
    images: Images,
) -> None:
    model = HeldModel()
    first, second = await one_after_the_other(model, images)
    second.cancel()
    await asyncio.wait([second])
    model.calls[0].set_result(None)
    assert len((await first).rows) == 1


async def test_a_vector_that_is_not_finite_is_not_kept(images: Images) -> None:
    class OnceNan(FakeModel):
        async def embed(
            self, stack: Pixels, deadline: float, tenant: str | None = None
        ) -> StackVectors:
            answer = await super().embed(stack, deadline)
            if len(self.stacks) == 1:
                answer.vectors[:] = np.nan
            return answer

    opened = service(OnceNan())
    bad = await embed(opened, images(1), on_error="report")
    assert isinstance(errors(bad)[0], Internal)
    assert (await embed(opened, images(1))).cached == 0


async def test_vectors_of_two_models_are_never_in_one_answer(images: Images) -> None:
    class Replaced(FakeModel):
        stack_bytes = IMAGE_BYTES
        identities = iter([b"fake", b"newer", b"fake"])

        async def embed(
            self, stack: Pixels, deadline: float, tenant: str | None = None
        ) -> StackVectors:
            answer = await super().embed(stack, deadline)
            return answer._replace(identity=next(self.identities))

    opened = service(Replaced())
    with pytest.raises(Unavailable) as caught:
        await embed(opened, images(2))
    assert caught.value.retry_after_s == 1
    assert (await embed(opened, images(2))).cached == 1  # what the older one made is good


async def test_stages_are_timed(images: Images) -> None:
    began = time.perf_counter()
    timing = (await embed(service(), images(3))).timing
    took_ms = (time.perf_counter() - began) * 1e3
    assert 0 < timing.decode < took_ms
    assert 0 < timing.fetch < took_ms
    assert (timing.queue, timing.model) == (1.5, 2.5)


# Options of a handle's callers, whom no schema checks.


@pytest.mark.parametrize("dimensions", [0, -1, "12", 1.5, True])
async def test_dimensions_that_are_no_size_are_a_bad_request(dimensions: Any) -> None:
    opened = service(FakeModel(replace(CARD, matryoshka=True)))
    with pytest.raises(BadRequest):
        await embed(opened, [TextItem("x")], dimensions=dimensions)


async def test_dimensions_may_be_a_number_of_numpys(images: Images) -> None:
    embedded = await embed(service(), images(1), dimensions=np.int64(12))
    assert len(embedded.rows) == 1


async def test_an_unknown_way_to_treat_errors_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        await embed(service(), [TextItem("x")], on_error="reprot")


async def test_nobody_waits_long_for_another_request_with_the_same_image(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "FOLLOW_S", 0.05)
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class StuckFetcher(FakeFetcher):
        async def download(self, url: str, *, reserve: Any) -> bytes:
            return await never

    opened = service(fetcher=StuckFetcher())  # type: ignore[arg-type]
    (popular,) = images(1)
    # Its image is loaded, and then waits for the one beside it.
    slow = asyncio.create_task(embed(opened, [popular, UrlItem("https://slow")]))
    await asyncio.sleep(0.1)
    embedded = await asyncio.wait_for(embed(opened, [popular]), 2)
    assert embedded.rows[0] is not None
    slow.cancel()
    await asyncio.wait([slow])
    again = await asyncio.wait_for(embed(opened, [popular]), 2)
    assert again.cached == 1


async def test_all_requests_of_one_tenant_share_its_limits(images: Images) -> None:
    opened = service()
    assert opened._limits("a") is opened._limits("a")
    assert opened._limits("a") is not opened._limits("b")
    assert opened._limits(None) is not opened._limits(None)


async def test_an_image_that_takes_long_is_decoded_in_the_slow_lane(images: Images) -> None:
    lanes = []

    class Workers(InProcess):
        def decode(self, data: bytes, spec: Any, *, slow_lane: bool = False) -> Pixels:
            lanes.append(slow_lane)
            if not slow_lane:
                raise TakesLongError
            return super().decode(data, spec)

    opened = service()
    opened._stacks._loader._workers = Workers(10_000_000)  # type: ignore[assignment]
    embedded = await embed(opened, images(1))
    assert not errors(embedded)[0]
    assert lanes == [False, True]


class SlowImages(InProcess):
    """Those of SLOW_SIZE take long, until they are released."""

    SLOW_SIZE = (88, 66)

    def __init__(self) -> None:
        super().__init__(10_000_000)
        self.begun = threading.Event()
        self.released = threading.Event()

    def decode(self, data: bytes, spec: Any, *, slow_lane: bool = False) -> Pixels:
        with Image.open(io.BytesIO(data)) as image:
            if image.size == self.SLOW_SIZE:
                if not slow_lane:
                    raise TakesLongError
                self.begun.set()
                self.released.wait(10)
        return super().decode(data, spec)


async def test_images_that_get_no_turn_in_the_slow_lane_say_so_and_the_others_are_answered(
    jpeg: Jpeg,
) -> None:
    slow = [BytesItem(jpeg(i, SlowImages.SLOW_SIZE)) for i in range(3)]
    quick = [BytesItem(jpeg(i)) for i in range(4)]
    opened = service(limits={"request_timeout_s": 2.0})
    workers = SlowImages()
    opened._stacks._loader._workers = workers  # type: ignore[assignment]
    try:
        async with opened.time_limit() as deadline:
            embedded = await embed(opened, [*slow, *quick], deadline, on_error="report")
    finally:
        workers.released.set()
    found = [(e.code, e.retry_after_s) if e else None for e in errors(embedded)]
    assert found == [("overloaded", 10)] * 3 + [None] * 4


async def test_images_that_take_long_do_not_hold_up_others_of_the_same_caller(jpeg: Jpeg) -> None:
    opened = service()
    workers = SlowImages()
    opened._stacks._loader._workers = workers  # type: ignore[assignment]
    slow = [BytesItem(jpeg(i, SlowImages.SLOW_SIZE)) for i in range(3)]
    waiting = asyncio.create_task(embed(opened, slow, tenant="a"))
    try:
        await asyncio.to_thread(workers.begun.wait, 5)
        quick = await embed(opened, [BytesItem(jpeg(7))], tenant="a")
        assert errors(quick) == [None]
        assert not waiting.done()
    finally:
        workers.released.set()
    assert errors(await waiting) == [None] * 3


async def test_what_is_not_loaded_in_time_is_reported_and_the_rest_is_answered(
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


async def test_no_caller_gets_all_the_room_there_is_for_images(
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
