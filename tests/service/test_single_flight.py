"""What was embedded before, or is being embedded for another request, is not embedded again."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from deployments.errors import Internal, RaylensError, TextTooLong, Unavailable
from deployments.items import PathItem, TextItem, UrlItem
from deployments.service import stacks
from deployments.service.embedding import Embedded
from deployments.wire import Decoded, ImageFacts, StackVectors
from tests.fakes import TEXT, FakeModel, InProcess, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, HeldModel
from tests.service.requests import CORRUPT, embed, errors, vectors

# The cache


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


async def test_what_a_file_is_is_known_wherever_its_vector_comes_from(images: Images) -> None:
    (photo,), facts = images(1), ImageFacts(16, 16, "JPEG", 8)
    model = HeldModel()
    opened = service(model)
    first = asyncio.create_task(embed(opened, [photo, photo]))
    await model.taken(1)
    second = asyncio.create_task(embed(opened, [CORRUPT, photo], on_error="report"))
    await asyncio.sleep(0.1)
    model.calls[0].set_result(None)
    assert (await first).images == [facts, facts]
    assert (await second).images == [None, facts]
    assert (await embed(opened, [photo])).images == [facts]  # cached
    assert len(model.calls) == 1
    assert (await embed(service(FakeModel(text=TEXT)), [TextItem("a")])).images == [None]


async def test_a_setting_turns_the_cache_off(images: Images) -> None:
    model = FakeModel()
    opened = service(model, cache={"max_bytes": 0})
    for _ in range(2):
        embedded = await embed(opened, [*images(1), *images(1)])
        assert embedded.cached == 1  # within the request
    assert [len(stack) for stack in model.stacks] == [1, 1]


async def test_a_cached_long_text_is_still_reported_as_truncated_or_refused() -> None:
    opened = service(FakeModel(text=TEXT))
    items = [TextItem("x" * 100)]
    for _ in range(2):
        embedded = await embed(opened, items)
        assert (embedded.truncated, embedded.tokens) == ({0}, TEXT.max_tokens)
    with pytest.raises(TextTooLong):
        await embed(opened, items, truncate=False)


async def test_a_vector_that_is_not_finite_is_not_cached(images: Images) -> None:
    class OnceNan(FakeModel):
        async def embed(self, *call: Any) -> StackVectors:
            answer = await super().embed(*call)
            if len(self.stacks) == 1:
                answer.vectors[:] = np.nan
            return answer

    opened = service(OnceNan())
    bad = await embed(opened, images(1), on_error="report")
    assert isinstance(errors(bad)[0], Internal)
    assert (await embed(opened, images(1))).cached == 0


# Requests for the same item at the same time


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


async def test_two_requests_for_the_same_images_in_opposite_order_do_not_deadlock(
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
async def test_a_request_embeds_the_item_itself_if_the_one_it_waits_for_fails(
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


@pytest.mark.parametrize("shared", ["corrupt", "good"])
async def test_a_request_that_fails_names_the_same_items_whatever_other_requests_do(
    images: Images, shared: str
) -> None:
    decoding, held = threading.Event(), threading.Event()

    class HeldWorkers(InProcess):
        def decode(self, *args: Any, **options: Any) -> Decoded:
            if not decoding.is_set():  # the first only
                decoding.set()
                held.wait(10)
            return super().decode(*args, **options)

    model = FakeModel()
    opened = service(model, workers=HeldWorkers(10_000))
    item = CORRUPT if shared == "corrupt" else images(1)[0]
    first = asyncio.create_task(embed(opened, [item], on_error="report"))
    assert await asyncio.to_thread(decoding.wait, 10)
    second = asyncio.create_task(embed(opened, [item, PathItem("gone")]))
    third = asyncio.create_task(embed(opened, [item], on_error="report"))
    await asyncio.wait([second], timeout=1)
    held.set()
    with pytest.raises(RaylensError) as caught:
        await second
    expected = [(1, "path_not_found")]
    if shared == "corrupt":
        expected.insert(0, (0, "corrupt_image"))
    assert [(i, e.code) for i, e in caught.value.items] == expected
    assert caught.value.code == expected[0][1]
    assert [(await task).cached for task in (first, third)] == [0, shared == "good"]
    assert len(model.stacks) == (shared == "good")


async def test_a_caller_who_leaves_while_waiting_does_the_other_request_no_harm(
    images: Images,
) -> None:
    model = HeldModel()
    first, second = await one_after_the_other(model, images)
    second.cancel()
    await asyncio.wait([second])
    model.calls[0].set_result(None)
    assert len((await first).rows) == 1


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
    # The popular image is loaded, and then waits for the slow one beside it.
    slow = asyncio.create_task(embed(opened, [popular, UrlItem("https://slow")]))
    await asyncio.sleep(0.1)
    embedded = await asyncio.wait_for(embed(opened, [popular]), 2)
    assert embedded.rows[0] is not None
    slow.cancel()
    await asyncio.wait([slow])
    again = await asyncio.wait_for(embed(opened, [popular]), 2)
    assert again.cached == 1
