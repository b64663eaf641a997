"""A request is refused at once if what waits already would take longer than limits.max_wait_s."""

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import replace

import pytest

from deployments.errors import Overloaded, RateLimited, Unavailable
from deployments.service.admission import _RefusalLog
from tests.fakes import CARD, FakeModel, service
from tests.service.conftest import Images
from tests.service.fakes import HeldModel
from tests.service.requests import embed


def model(**pace: float) -> FakeModel:
    made = FakeModel()
    for name, value in pace.items():
        setattr(made, name, value)
    return made


async def test_what_waits_already_decides_and_the_answer_says_how_long() -> None:
    opened = service(model(image_s=1.5))
    with ExitStack() as waiting:
        for _ in range(4):  # 6 s of work
            waiting.enter_context(opened.admission.arriving(None))
        with pytest.raises(Overloaded, match="would take 6 s") as caught:
            waiting.enter_context(opened.admission.arriving(None))
        assert caught.value.retry_after_s == 6
    with opened.admission.arriving(None):
        pass


async def test_the_work_of_other_ingress_replicas_counts() -> None:
    opened = service(model(image_s=0.5, others_s=3.9))
    with ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(opened.admission.arriving(None))
        with pytest.raises(Overloaded):
            waiting.enter_context(opened.admission.arriving(None))


async def test_a_tenant_gets_half_and_the_other_half_is_for_others() -> None:
    opened = service(model(image_s=1.0))
    with ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(opened.admission.arriving("busy"))
        with pytest.raises(RateLimited):
            waiting.enter_context(opened.admission.arriving("busy"))
        waiting.enter_context(opened.admission.arriving("quiet"))


def test_while_nothing_is_known_of_the_model_all_are_admitted() -> None:
    opened = service(model())
    with ExitStack() as waiting:
        for _ in range(1000):
            waiting.enter_context(opened.admission.arriving(None))


def test_of_several_models_one_that_could_answer_is_enough() -> None:
    slow, quick = model(image_s=3.0), model(image_s=0.1)
    opened = service(slow, quick)
    with ExitStack() as waiting:
        for _ in range(10):
            waiting.enter_context(opened.admission.arriving(None))
        for _ in range(100):
            waiting.enter_context(opened.admission.arriving(None)).close()


async def test_items_count_until_they_are_done_and_only_once(images: Images) -> None:
    held = HeldModel()
    held.image_s = 1.0
    opened = service(held)
    tasks = [asyncio.create_task(embed(opened, images(2, first=2 * n))) for n in range(3)]
    await held.taken(6)
    with pytest.raises(Overloaded):  # 6 s
        await embed(opened, images(1, first=6))
    for call in held.calls:
        call.set_result(None)
    await asyncio.gather(*tasks)
    with opened.admission.arriving(None):
        pass


async def test_a_large_request_holds_others_up_for_its_turn_alone(images: Images) -> None:
    held = HeldModel()
    held.image_s = 0.5
    opened = service(held)
    task = asyncio.create_task(embed(opened, images(200)))
    await held.taken(1)
    with opened.admission.arriving(None):  # it takes turns, and counts as half of the 5 s at most
        pass
    task.cancel()
    await asyncio.wait([task])


async def test_refusals_are_one_line_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.service.admission._EVERY_S", 0.05)
    log = _RefusalLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(500):
            log.note(2, Overloaded("The answer would take 9 s.", retry_after_s=9))
        await asyncio.sleep(0.1)
        log.note(1, Overloaded("The answer would take 8 s.", retry_after_s=8))
        await asyncio.sleep(0.1)
    lines = [record.getMessage() for record in caplog.records]
    assert (
        lines[0] == "1000 request(s) refused within a second; the first: The answer would take 9 s."
    )
    assert len(lines) == 2


async def test_the_model_is_told_what_was_refused() -> None:
    """Its deployment scales on that too."""
    full = model(image_s=1.0)
    opened = service(full)
    with ExitStack() as waiting:
        for _ in range(6):
            waiting.enter_context(opened.admission.arriving(None))
        for _ in range(3):
            with pytest.raises(Overloaded):
                waiting.enter_context(opened.admission.arriving(None))
    assert full.refused_items == 3
    opened.admission.refused_in_front(10)  # in front of the service
    assert full.refused_items == 13


async def test_a_model_that_is_asleep_refuses_before_a_body_is_read() -> None:
    sleeping = model()
    sleeping.asleep = Unavailable("asleep", retry_after_s=7)
    with pytest.raises(Unavailable), service(sleeping).admission.arriving(None):
        pass


async def test_a_request_wakes_no_model_that_it_may_not_be_for() -> None:
    class Sleeping(FakeModel):
        woken = 0

        def refusal(self) -> Unavailable:
            self.woken += 1
            return Unavailable("asleep")

    awake, sleeping = model(), Sleeping(replace(CARD, id="other"))
    opened = service(awake, sleeping)
    with opened.admission.arriving(None):
        pass
    assert not sleeping.woken
    with pytest.raises(Unavailable), service(sleeping).admission.arriving(None):
        pass
    assert sleeping.woken
