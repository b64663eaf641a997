"""A request is cut into stacks that the model takes, and put together again in order."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from deployments.errors import CorruptImage, RaylensError, TooManyItems
from deployments.service.stacks import STACK_ITEMS
from deployments.service.tasks import STACKS_IN_FLIGHT, all_or_none
from tests.fakes import PATCHES, FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import HeldModel, SmallStacksModel
from tests.service.requests import CORRUPT, embed, errors, vectors


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


async def test_no_stack_has_more_vectors_than_an_answer_carries(images: Images) -> None:
    model = FakeModel(replace(PATCHES, dimensions=30))  # 480 bytes, where the pixels are 192
    model.stack_bytes = 1000
    got = vectors(await embed(service(model), images(7), several=True))
    assert got.shape == (7, 4, 3)
    assert sorted(map(len, model.stacks), reverse=True) == [2, 2, 2, 1]


async def test_a_request_has_few_stacks_in_flight_at_a_time(images: Images) -> None:
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


async def test_stages_are_timed(images: Images) -> None:
    began = time.perf_counter()
    timing = (await embed(service(), images(3))).timing
    took_ms = (time.perf_counter() - began) * 1e3
    assert 0 < timing.decode < took_ms
    assert 0 < timing.fetch < took_ms
    assert (timing.queue, timing.model) == (1.5, 2.5)


async def test_nothing_goes_on_once_one_of_several_has_failed() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    async def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await all_or_none([slow(), fail()])
    assert ended == ["slow"]
