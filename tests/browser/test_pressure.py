"""Many files, a service that is busy, gone or still loading, and people who change their minds."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import (
    PHOTOS,
    Open,
    Serve,
    choose,
    names,
    status,
    until_status,
)
from tests.fakes import CARD, FakeModel

# A vector of fewer dimensions than the model's.
OTHER = {"object": "embedding", "index": 0, "embedding": "AACAPw=="}


class SlowModel(FakeModel):
    """Takes a while for each stack."""

    async def embed(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0.4)
        return await super().embed(*args, **options)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, jpeg: Callable[..., bytes]) -> list[Path]:
    """500 different images."""
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"{number:03}.jpg" for number in range(500)]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg(number, (32, 24)))
    return paths


def test_many_files_go_in_batches_with_progress_and_the_matrix_is_bounded(
    serve: Serve, visit: Open, many: list[Path]
) -> None:
    page = visit(serve(limits={"max_items": 20}))
    sizes: list[int] = []
    page.on(
        "request",
        lambda request: (
            sizes.append((request.post_data_buffer or b"").count(b'filename="'))
            if request.method == "POST"
            else None
        ),
    )
    choose(page, many)
    page.wait_for_selector("#progress:not([hidden])")
    page.wait_for_function("() => document.getElementById('progress').value > 0")
    assert page.is_visible("#cancel")
    assert page.get_attribute("#progress", "max") == "500"
    page.wait_for_selector("#progress", state="hidden", timeout=60_000)
    assert not page.is_visible("#cancel")
    until_status(page, "500 images embedded.")
    assert page.locator("#matrix tbody tr").count() == 60
    assert "first 60 of 500" in page.inner_text("#alike-note")
    assert page.locator(".card .nearest").count() == 500
    assert "of 25 requests" in page.inner_text("#time-note").replace("Of", "of")
    assert "and 492 more" in page.inner_text("#snippet")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_no_more_than_a_thousand_are_taken(serve: Serve, visit: Open, many: list[Path]) -> None:
    page = visit(serve())
    choose(page, many)
    choose(page, many)
    choose(page, many[:1])
    assert "1,000 at a time" in page.inner_text("#line-error")
    assert page.locator(".card").count() == 1000
    page.click("#clear")
    assert page.locator(".card").count() == 0


def test_what_is_cancelled_is_not_sent_and_can_be_sent_later(
    serve: Serve, visit: Open, many: list[Path]
) -> None:
    page = visit(serve(SlowModel()))
    choose(page, many[:100])
    page.wait_for_function("() => document.getElementById('progress').value > 0")
    page.click("#cancel")
    until_status(page, "not sent")
    embedded = page.locator(".card .nearest").count()
    assert 0 < embedded < 100
    assert status(page) == f"{embedded} images embedded, {100 - embedded} not sent."
    page.click("#again")
    until_status(page, "100 images embedded.")


def test_new_files_wait_for_those_under_way(serve: Serve, visit: Open, many: list[Path]) -> None:
    page = visit(serve(SlowModel()))
    choose(page, many[:40])
    choose(page, PHOTOS[:2])
    until_status(page, "42 images embedded.")


def test_clearing_while_it_sends_starts_afresh(serve: Serve, visit: Open, many: list[Path]) -> None:
    page = visit(serve(SlowModel()))
    choose(page, many[:40])
    page.wait_for_selector("#cancel:not([hidden])")
    page.click("#clear")
    choose(page, PHOTOS[:2])
    until_status(page, "2 images embedded.")
    assert names(page) == [photo.name for photo in PHOTOS[:2]]


def test_one_can_be_removed_and_the_others_are_compared_again(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    choose(page, PHOTOS[:3])
    until_status(page, "3 images embedded.")
    page.hover(".card")
    page.click(".card .remove >> nth=0")
    until_status(page, "2 images embedded.")
    assert names(page) == [photo.name for photo in PHOTOS[1:3]]
    assert page.locator("#matrix tbody tr").count() == 2
    assert PHOTOS[0].name not in page.inner_text("#snippet")


def test_a_key_beyond_its_rate_is_told_so_and_when_to_go_on(serve: Serve, visit: Open) -> None:
    key = {"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest(), "rate": "1/hour"}
    page = visit(serve(auth={"keys": [key]}))
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    page.wait_for_selector("#facts dt")
    choose(page, PHOTOS[:2])
    page.wait_for_selector("#now:not([hidden])")
    assert "This key may send 1 requests per hour" in status(page)
    assert re.search(r"Trying again in \d{2,} s\.", status(page))
    page.click("#cancel")
    until_status(page, "0 images embedded, 2 not sent.")


@pytest.mark.parametrize("status_code", [429, 503])
def test_a_busy_service_is_asked_again_after_a_pause_or_at_once(
    serve: Serve, visit: Open, status_code: int
) -> None:
    error = {"error": {"message": "The service is busy.", "code": "overloaded"}}
    pauses = iter([1, 60])

    def refuse_twice(route: Any) -> None:
        after = next(pauses, None)
        if after is None:
            route.continue_()
        else:
            route.fulfill(status=status_code, json=error, headers={"Retry-After": str(after)})

    page = visit(serve())
    page.wait_for_selector("#facts dt")
    page.route("**/v1/embeddings", refuse_twice)
    choose(page, PHOTOS[:2])
    until_status(page, "The service is busy. Trying again in 1 s.")
    until_status(page, "The service is busy. Trying again in 60 s.")
    page.click("#now")
    until_status(page, "2 images embedded.")
    assert not page.is_visible("#now")


def test_a_page_that_is_opened_before_the_model_is_loaded_waits_for_it(
    serve: Serve, visit: Open
) -> None:
    model = FakeModel(card=None)
    page = visit(serve(model))
    page.wait_for_function(
        "() => document.getElementById('serving').textContent.includes('still being loaded')"
    )
    choose(page, PHOTOS[:2])
    assert "Waiting for the model" in status(page)
    model.names = frozenset({CARD.id})
    model.loaded_card = CARD
    until_status(page, "2 images embedded.")


def test_a_service_that_is_gone_is_named_and_all_can_be_sent_again(
    serve: Serve, visit: Open
) -> None:
    page = visit(serve())
    page.wait_for_selector("#facts dt")
    page.route("**/v1/embeddings", lambda route: route.abort())
    choose(page, PHOTOS[:2])
    until_status(page, "2 failed")
    assert "did not answer" in page.inner_text(".card .wrong >> nth=0")
    page.unroute("**/v1/embeddings")
    page.click("#again")
    until_status(page, "2 images embedded.")


def test_another_of_several_models_embeds_all_again(serve: Serve, visit: Open) -> None:
    page = visit(serve(FakeModel(), FakeModel(replace(CARD, id="other"))))
    choose(page, PHOTOS[:2])
    until_status(page, "2 images embedded.")
    page.select_option("#models", "other")
    page.wait_for_function("() => document.getElementById('serving').textContent.includes('other')")
    until_status(page, "2 images embedded.")
    assert "model=other" in page.inner_text("#snippet")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"body": "<html>", "content_type": "text/html"}, "is not the service's own"),
        ({"json": {"data": [OTHER] * 2, "usage": {"cached": 0}}}, "replaced by another"),
        ({"status": 502, "body": "<html>"}, "HTTP 502"),
        ({"status": 500, "json": {"error": {"message": "It failed."}}}, "It failed."),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_to_be_so(
    serve: Serve, visit: Open, answer: dict[str, Any], said: str
) -> None:
    page = visit(serve())
    page.wait_for_selector("#facts dt")
    page.route("**/v1/embeddings", lambda route: route.fulfill(**answer))
    choose(page, PHOTOS[:2])
    until_status(page, "0 images embedded, 2 failed.")
    assert said in page.inner_text(".card .wrong >> nth=0")
    assert page.is_visible("#again")


def test_vectors_of_a_model_that_was_replaced_are_made_anew(serve: Serve, visit: Open) -> None:
    model = FakeModel()
    page = visit(serve(model))
    choose(page, PHOTOS[:2])
    until_status(page, "2 images embedded.")
    model.loaded_card = replace(CARD, revision="r2", identity=b"r2")
    choose(page, PHOTOS[2:3])
    until_status(page, "3 images embedded.")
    assert sum(map(len, model.stacks)) == 5
    assert "r2" in page.inner_text("#facts")
