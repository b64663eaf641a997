"""Text over HTTP: beside images, against images, as labels; and several models behind one API."""

import base64
import io
import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.api.bodies import MAX_MENDED_BYTES
from deployments.service.stacks import CHARS_AT_A_TIME
from deployments.tokenizer import Encoded
from tests.api.conftest import Connect
from tests.fakes import CARD, TEXT, FakeModel, FakeTokenizer

SIGMOID = replace(TEXT, score="sigmoid", logit_bias=-5.0)


def image(colour: str) -> dict[str, str]:
    """A PNG of one colour as an item."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    return {"base64": base64.b64encode(buffer.getvalue()).decode()}


async def post(connect: Connect, path: str, body: dict[str, Any], *models: FakeModel) -> Any:
    async with connect(*(models or (FakeModel(text=TEXT),))) as client:
        return (await client.post(f"/v1/{path}", json=body)).json()


@pytest.mark.parametrize(
    ("item", "modality"),
    [
        ({"text": "a cat"}, None),
        ({"type": "text", "text": "a cat"}, None),
        ("a cat", None),
        ("a cat", "text"),
        ({"text": "https://example.org/cat.jpg"}, None),
        ("data:image/png;base64,AAAA", "text"),
        ({"text": ""}, None),
    ],
)
async def test_text_has_a_vector_in_every_spelling(
    connect: Connect, item: Any, modality: str | None
) -> None:
    body = await post(connect, "embeddings", {"input": item, "modality": modality})
    vector = body["data"][0]["embedding"]
    assert len(vector) == 12
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert (body["usage"]["texts"], body["usage"]["images"]) == (1, 0)


async def test_texts_and_images_keep_their_order_and_are_counted(connect: Connect) -> None:
    items = [image("#ff0000"), "#00ff00", image("#0000ff"), "#ff0000", "two"]
    body = await post(connect, "embeddings", {"input": items})
    vectors = np.array([entry["embedding"] for entry in body["data"]])
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-6)
    assert vectors[0] @ vectors[1] < 0
    assert body["usage"] == {
        "prompt_tokens": 7 + 7 + 3,
        "total_tokens": 7 + 7 + 3,
        "images": 2,
        "texts": 3,
        "cached": 0,
    }


async def test_a_text_twice_is_embedded_once_and_both_are_counted(connect: Connect) -> None:
    model = FakeModel(text=TEXT)
    body = await post(connect, "embeddings", {"input": ["one", "two", "one"]}, model)
    assert [len(stack) for stack in model.token_stacks] == [2]
    assert body["data"][0]["embedding"] == body["data"][2]["embedding"]
    assert (body["usage"]["cached"], body["usage"]["prompt_tokens"]) == (1, 9)


async def test_a_text_is_no_duplicate_of_an_image_of_the_same_bytes(connect: Connect) -> None:
    items = [{"base64": "Y2F0"}, {"text": "cat"}]
    body = await post(connect, "embeddings", {"input": items, "on_error": "report"})
    assert body["data"][0]["error"]["code"] == "unsupported_image"
    assert body["data"][1]["object"] == "embedding"


async def test_a_long_text_is_cut_and_says_so(connect: Connect) -> None:
    body = await post(connect, "embeddings", {"input": ["x" * 24, "x" * 25, "x" * 25]})
    assert [entry.get("truncated") for entry in body["data"]] == [None, True, True]
    assert body["data"][0]["embedding"] == body["data"][1]["embedding"]
    assert body["usage"]["prompt_tokens"] == 3 * 24


async def test_a_long_text_is_refused_when_it_may_not_be_cut(connect: Connect) -> None:
    items = ["short", "x" * 25]
    body = {"input": items, "truncate": False, "on_error": "report"}
    answer = await post(connect, "embeddings", body)
    assert answer["data"][0]["object"] == "embedding"
    assert answer["data"][1]["error"]["code"] == "text_too_long"
    failed = await post(connect, "embeddings", {"input": items, "truncate": False})
    assert (failed["error"]["code"], failed["error"]["param"]) == ("text_too_long", "input[1]")


async def test_a_text_over_the_limit_of_characters_is_refused_unread(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_text_chars": 30}) as client:
        good, bad = [await client.post("/v1/embeddings", json={"input": "x" * n}) for n in (30, 31)]
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]["code"]) == (413, "text_too_long")
    assert "30 characters" in bad.json()["error"]["message"]


async def test_similarity_mixes_images_and_texts(connect: Connect) -> None:
    body = {"a": [image("#ff0000"), "#00ff00"], "b": ["#ff0000", image("#00ff00")]}
    pairwise = await post(connect, "similarity", body)
    assert pairwise["scores"] == pytest.approx([1, 1], abs=1e-6)
    matrix = await post(connect, "similarity", {**body, "mode": "matrix"})
    assert matrix["scores"][0] == pytest.approx([1, -1 / 3], abs=1e-6)


async def test_rank_finds_the_image_that_a_text_means(connect: Connect) -> None:
    documents = [image("#0000ff"), image("#ff0000"), image("#00ff00")]
    body = await post(connect, "rank", {"query": "#00ff00", "documents": documents, "top_n": 1})
    assert body["results"] == [{"index": 2, "score": pytest.approx(1, abs=1e-6)}]


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


async def test_the_default_template_is_that_of_the_contract(connect: Connect) -> None:
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


async def test_more_labels_than_items_are_fine(connect: Connect) -> None:
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
async def test_what_classify_cannot_do_is_named(
    connect: Connect, changes: dict[str, Any], code: str, param: str | None
) -> None:
    body = {"input": image("#ff0000"), "labels": ["a"], **changes}
    limits = {"max_labels": 2, "max_text_chars": 40}
    async with connect(FakeModel(text=TEXT), limits=limits) as client:
        error = (await client.post("/v1/classify", json=body)).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def two_models() -> tuple[FakeModel, FakeModel]:
    more = replace(CARD, id="more", aliases=("second",), dimensions=12)
    return FakeModel(), FakeModel(more, text=TEXT)


async def test_the_request_selects_the_model_by_id_or_alias(connect: Connect) -> None:
    first, second = two_models()
    async with connect(first, second) as client:
        for number, name in enumerate((None, "fake", "more", "second")):
            body = {"input": image(f"#ff00{number:02x}"), "model": name}
            answer = (await client.post("/v1/embeddings", json=body)).json()
            assert answer["model"] == ("more" if name in ("more", "second") else "fake")
        missing = await client.post("/v1/embeddings", json={"input": "x", "model": "none"})
    assert (len(first.stacks), len(second.stacks)) == (2, 2)
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_every_endpoint_takes_the_model_that_the_request_names(connect: Connect) -> None:
    bodies = {
        "embeddings": {"input": "a"},
        "similarity": {"a": ["a"], "b": [image("#ff0000")]},
        "rank": {"query": "a", "documents": [image("#ff0000")]},
        "classify": {"input": image("#ff0000"), "labels": ["a"]},
    }
    async with connect(*two_models()) as client:
        for path, body in bodies.items():
            default = await client.post(f"/v1/{path}", json=body)
            assert default.json()["error"]["code"] == "text_unsupported"
            named = await client.post(f"/v1/{path}", json={**body, "model": "more"})
            assert named.status_code == 200


async def test_all_models_are_listed(connect: Connect) -> None:
    async with connect(*two_models()) as client:
        models = (await client.get("/v1/models")).json()["data"]
    shown = [(m["id"], m["modalities"], m["max_text_tokens"]) for m in models]
    assert shown == [("fake", ["image"], None), ("more", ["image", "text"], TEXT.max_tokens)]


async def test_a_model_that_is_loading_is_not_ready_and_not_called_missing(
    connect: Connect,
) -> None:
    async with connect(FakeModel(), FakeModel(None)) as client:
        ready = await client.get("/readyz")
        first = await client.post("/v1/embeddings", json={"input": image("#ff0000")})
        other = await client.post("/v1/embeddings", json={"input": "x", "model": "loading"})
        missing = await client.post("/v1/embeddings", json={"input": "x", "model": "more"})
        models = (await client.get("/v1/models")).json()["data"]
    assert (ready.status_code, first.status_code, other.status_code) == (503, 200, 503)
    assert missing.status_code == 404
    assert [model["id"] for model in models] == ["fake"]


async def test_a_template_of_many_places_is_refused_before_it_is_filled(connect: Connect) -> None:
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
    assert peak < 10 * 2**20  # filled, it is 32 million characters


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


async def test_a_text_that_breaks_the_tokenizer_is_an_error_of_its_own(connect: Connect) -> None:
    class BrokenTokenizer(FakeTokenizer):
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            if "bad" in texts:
                raise RuntimeError("a secret")
            return super().encode(texts)

    model = FakeModel(text=TEXT)
    model.tokenizer = BrokenTokenizer()
    half = CHARS_AT_A_TIME // 2
    items = [image("#ff0000"), "a" * half, "b" * half, "bad"]
    body = await post(connect, "embeddings", {"input": items, "on_error": "report"}, model)
    assert [entry["object"] for entry in body["data"]] == ["embedding"] * 3 + ["error"]
    assert body["data"][-1]["error"]["code"] == "internal"
    assert "secret" not in str(body)


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"cut \ud83d", "cut \ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"whole \ud83d\ude00 and \\ud83d as text, \ud83d", "whole 😀 and \\ud83d as text, \ufffd"),
    ],
)
async def test_half_a_character_in_json_is_read_as_browsers_do(
    connect: Connect, escaped: str, read: str
) -> None:
    model = FakeModel(text=TEXT)
    async with connect(model) as client:
        headers = {"content-type": "application/json"}
        content = f'{{"a": [{{"text": "{escaped}"}}], "b": [{{"text": {json.dumps(read)}}}]}}'
        answer = await client.post("/v1/similarity", content=content, headers=headers)
    assert answer.json()["scores"] == pytest.approx([1], abs=1e-6)
    assert len(model.token_stacks[0]) == 1  # one text, spelt twice


async def test_a_large_body_is_not_searched_for_half_characters(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        content = r'{"input": "\ud83d", "user": "' + r"\n" * (MAX_MENDED_BYTES // 2) + '"}'
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/embeddings", content=content, headers=headers)
    assert answer.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("classify", {"input": "x", "labels": ["cat"], "template": "no place"}, "template"),
        ("embeddings", {"input": "x", "dtype": "int8", "normalize": False}, "normalize"),
        ("similarity", {"a": ["x"], "b": ["x", "y"]}, "b"),
    ],
)
async def test_options_that_do_not_go_together_name_the_key(
    connect: Connect, path: str, body: dict[str, Any], param: str
) -> None:
    answer = await post(connect, path, body)
    assert (answer["error"]["code"], answer["error"]["param"]) == ("bad_request", param)
