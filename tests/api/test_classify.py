"""POST /v1/classify: probabilities by the model's rule, labels, templates and their limits."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.api.colours import image, post
from tests.api.conftest import Connect
from tests.fakes import CARD, TEXT, FakeModel

SIGMOID = replace(TEXT, score="sigmoid", logit_bias=-5.0)


async def test_classify_is_the_softmax_of_scaled_cosines_best_first(connect: Connect) -> None:
    labels = ["#00ff00", "#ff0000"]
    body = await post(connect, "classify", {"input": image("#ff0000"), "labels": labels})
    (answer,) = body["data"]
    powers = np.exp(10.0 * np.array([1, -1 / 3]))
    expected = powers / powers.sum()
    assert [entry["label"] for entry in answer["labels"]] == ["#ff0000", "#00ff00"]
    found = [entry["probability"] for entry in answer["labels"]]
    assert found == pytest.approx(expected, abs=1e-5)


async def test_classify_by_sigmoid_judges_each_label_by_itself(connect: Connect) -> None:
    model = FakeModel(text=SIGMOID)
    labels = ["#ff0000", "#00ff00", "#ff0000"]
    body = await post(connect, "classify", {"input": [image("#ff0000")], "labels": labels}, model)
    found = {e["label"]: e["probability"] for e in body["data"][0]["labels"]}
    expected = 1 / (1 + np.exp(5.0 - 10.0 * np.array([1, -1 / 3])))
    assert found["#ff0000"] == pytest.approx(expected[0], abs=1e-5)
    assert found["#00ff00"] == pytest.approx(expected[1], abs=1e-5)
    assert len(body["data"][0]["labels"]) == 3


async def test_the_default_template_is_a_photo_of_the_label(connect: Connect) -> None:
    model = FakeModel(text=TEXT)
    await post(connect, "classify", {"input": image("#ff0000"), "labels": ["cat"]}, model)
    (row,) = model.token_stacks[0]
    assert "".join(chr(i) for i in row if i >= 0) == "a photo of a cat."


async def test_labels_are_embedded_once_for_all_requests(connect: Connect) -> None:
    model = FakeModel(text=TEXT)
    async with connect(model) as client:
        for labels in (["a", "b"], ["b", "c", "a"], ["a"]):
            body = {"input": image("#ff0000"), "labels": labels, "template": "{}"}
            assert (await client.post("/v1/classify", json=body)).status_code == 200
        other = {"input": image("#ff0000"), "labels": ["a"], "template": "no {}"}
        await client.post("/v1/classify", json=other)
    assert [len(stack) for stack in model.token_stacks] == [2, 1, 1]


async def test_there_may_be_more_labels_than_max_items(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_items": 3}) as client:
        body = {"input": image("#ff0000"), "labels": [f"label {i}" for i in range(10)]}
        answer = (await client.post("/v1/classify", json=body)).json()
    assert len(answer["data"][0]["labels"]) == 10


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"labels": ["a", "b", "c"]}, "too_many_items", "labels"),
        ({"labels": ["a", "x" * 40]}, "text_too_long", "labels[1]"),
        ({"template": "a photo"}, "bad_request", "template"),
        ({"input": [image("#ff0000"), {"base64": "AAAA"}]}, "unsupported_image", "input[1]"),
    ],
)
async def test_classify_names_what_it_refuses(
    connect: Connect, changes: dict[str, Any], code: str, param: str | None
) -> None:
    body = {"input": image("#ff0000"), "labels": ["a"], **changes}
    limits = {"max_labels": 2, "max_text_chars": 40}
    async with connect(FakeModel(text=TEXT), limits=limits) as client:
        error = (await client.post("/v1/classify", json=body)).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


async def test_a_template_of_many_placeholders_is_refused_unfilled(connect: Connect) -> None:
    body = {
        "input": image("#ff0000"),
        "labels": ["x" * 8000, "y" * 8000],
        "template": "{}" * 4000,
    }
    tracemalloc.start()
    answer = await post(connect, "classify", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer["error"]["code"], answer["error"]["param"]) == ("text_too_long", "labels[0]")
    assert peak < 10 * 2**20  # filled in, it would be 32 million characters


async def test_an_answer_that_would_be_too_large_is_refused(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_body_bytes": 20_000}) as client:
        body = {"input": ["a"] * 10, "labels": ["x" * 1000, "y" * 1000]}
        answer = await client.post("/v1/classify", json=body)
        smaller = await client.post("/v1/classify", json={**body, "input": ["a"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert smaller.status_code == 200


async def test_classify_fits_into_an_idle_service_however_short_its_queue(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_queued_items": 3}) as client:
        body = {"input": ["a", "b", "c", "d"], "labels": ["x", "y", "z", "w"]}
        assert (await client.post("/v1/classify", json=body)).status_code == 200


async def test_a_label_that_fails_is_named_as_a_label(connect: Connect) -> None:
    class BrokenModel(FakeModel):
        @staticmethod
        def _vector(text: str) -> Any:
            return np.full(12, np.nan, np.float32)

    body = {"input": image("#ff0000"), "labels": ["a", "b"]}
    error = (await post(connect, "classify", body, BrokenModel(text=TEXT)))["error"]
    assert (error["code"], error["param"]) == ("internal", "labels[0]")


async def test_labels_of_two_models_are_not_mixed_up(connect: Connect) -> None:
    first, second = FakeModel(text=TEXT), FakeModel(replace(CARD, id="more"), text=TEXT)
    async with connect(first, second) as client:
        for name in ("fake", "more"):
            body = {"input": image("#ff0000"), "labels": ["a"], "model": name}
            await client.post("/v1/classify", json=body)
    assert [len(model.token_stacks) for model in (first, second)] == [1, 1]
