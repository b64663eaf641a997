"""What a job leaves in the metrics: its stages, its waits, the cache's part, and refusals."""

import asyncio
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from deployments.errors import ModelReplaced, Overloaded, Unavailable
from deployments.items import PathItem, TextItem, UrlItem
from deployments.service import embedding
from deployments.wire import StackVectors
from tests.conftest import Jpeg
from tests.fakes import TEXT, FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import FakeFetcher, HeldModel
from tests.service.requests import embed


async def test_each_stage_is_timed_once_for_what_it_works_on(jpeg: Jpeg, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    fetcher = FakeFetcher(cat=jpeg(2))
    model = FakeModel(text=TEXT)
    opened = service(model, roots=[tmp_path], fetcher=fetcher)  # type: ignore[arg-type]
    await embed(opened, [PathItem("a.jpg"), UrlItem("https://cat"), TextItem("x"), TextItem("y")])
    counts = {
        stage: sum(found.counts) for (stage,), found in opened.metrics.stage_seconds.values.items()
    }
    assert counts == {"fetch": 2, "decode": 2, "tokenise": 1, "queue": 2, "model": 2}


async def test_images_that_came_with_the_request_are_not_fetched(images: Images) -> None:
    opened = service()
    await embed(opened, images(2))
    assert ("fetch",) not in opened.metrics.stage_seconds.values


async def test_what_the_model_was_spared_is_counted(images: Images) -> None:
    opened = service()
    (image,) = images(1)
    await embed(opened, [image, image])
    await embed(opened, [image])
    assert +Counter(opened.metrics.cache_lookups.values) == {
        ("miss",): 1,
        ("duplicate",): 1,
        ("hit",): 1,
    }


async def test_a_request_counts_with_its_expected_wait_and_its_real_one(images: Images) -> None:
    model = FakeModel()
    model.image_s = 0.25
    opened = service(model)
    await embed(opened, images(2))
    expected = opened.metrics.predicted_wait_seconds.values[()]
    real = opened.metrics.wait_seconds.values[()]
    assert expected.sum == pytest.approx(0.5)
    assert sum(expected.counts) == sum(real.counts) == 1


async def test_the_backlog_is_what_is_waiting_now() -> None:
    model = FakeModel()
    model.image_s = 1.5
    opened = service(model)
    with ExitStack() as waiting:
        waiting.enter_context(opened.admission.arriving(None))
        assert opened.metrics.backlog_seconds.now() == {(): 1.5}
    assert opened.metrics.backlog_seconds.now() == opened.metrics.backlog_items.now() == {(): 0}


async def test_refusals_name_the_limit_and_those_in_front_are_counted() -> None:
    model = FakeModel()
    model.image_s = 6
    opened = service(model)
    with ExitStack() as waiting:
        waiting.enter_context(opened.admission.arriving(None))
        with pytest.raises(Overloaded) as caught:
            waiting.enter_context(opened.admission.arriving(None))
    assert caught.value.limit == "max_wait_s"
    opened.admission.refused_in_front(7)
    assert +Counter(opened.metrics.refusals.values) == {("front",): 7}


async def test_a_job_that_begins_again_is_counted(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(FakeModel):
        async def embed(self, *call: object) -> StackVectors:
            raise ModelReplaced("replaced")

        async def reloaded(self) -> None:
            pass

    monkeypatch.setattr(embedding, "RESTART_PAUSES_S", (0, 0))
    opened = service(Replaced())
    with suppress(ModelReplaced):
        await embed(opened, images(1))
    assert +Counter(opened.metrics.retries.values) == {("model_replaced",): 2}


async def test_a_url_that_is_listed_twice_is_a_duplicate(jpeg: Jpeg) -> None:
    opened = service(fetcher=FakeFetcher(cat=jpeg(1)))  # type: ignore[arg-type]
    await embed(opened, [UrlItem("https://cat")] * 3)
    assert +Counter(opened.metrics.cache_lookups.values) == {("miss",): 1, ("duplicate",): 2}


@pytest.mark.parametrize("fails", [False, True])
async def test_an_item_that_another_request_has_under_way_counts_once(
    images: Images, fails: bool
) -> None:
    held = HeldModel()
    opened = service(held)
    tasks = [asyncio.create_task(embed(opened, images(1)))]
    await held.taken(1)
    tasks.append(asyncio.create_task(embed(opened, images(1))))
    await asyncio.sleep(0.1)  # the second one decodes, and waits for the first one's vector
    if fails:
        held.calls[0].set_exception(Unavailable("no"))
        await held.taken(2)
    held.calls[-1].set_result(None)
    await asyncio.gather(*tasks, return_exceptions=True)
    counts = opened.metrics.cache_lookups.values
    assert counts["miss",] == 1 + fails
    assert sum(counts.values()) == 2
