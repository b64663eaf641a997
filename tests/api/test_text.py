"""Texts over HTTP: beside images, compared with images, truncated, and in every spelling."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deployments.api.bodies import MAX_REPAIRED_BYTES
from deployments.service.stacks import CHARS_AT_A_TIME
from deployments.texts.tokenizer import Encoded
from tests.api.colours import image, post
from tests.api.conftest import Connect
from tests.fakes import TEXT, FakeModel, FakeTokenizer

LONG = "x" * 100


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


async def test_a_repeated_text_is_embedded_once_and_counted_each_time(connect: Connect) -> None:
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


async def test_a_text_over_the_character_limit_is_cut_or_refused(connect: Connect) -> None:
    spaces = "cat" + " " * 40  # few tokens, so that only the characters are too many
    async with connect(FakeModel(text=TEXT), limits={"max_text_chars": 20}) as client:
        body = {"input": ["x" * 20, "x" * 21, spaces, spaces]}
        cut = (await client.post("/v1/embeddings", json=body)).json()
        again = (await client.post("/v1/embeddings", json={"input": spaces})).json()
        refused = await client.post("/v1/embeddings", json={**body, "truncate": False})
    assert [entry.get("truncated") for entry in cut["data"]] == [None, True, True, True]
    assert cut["data"][0]["embedding"] == cut["data"][1]["embedding"]
    assert again["data"][0]["truncated"]
    assert again["usage"]["cached"] == 1
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "text_too_long")
    assert refused.json()["error"]["param"] == "input[1]"
    assert refused.json()["error"]["message"] == (
        "The text is longer than 20 characters; shorten it, or let it be truncated."
    )


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("similarity", {"a": ["cat"], "b": [LONG]}, "b[0]"),
        ("rank", {"query": LONG, "documents": ["cat"]}, "query"),
        ("rank", {"query": "cat", "documents": ["cat", LONG]}, "documents[1]"),
        ("classify", {"input": LONG, "labels": ["cat"], "template": "{}"}, "input"),
        ("classify", {"input": "cat", "labels": ["cat", LONG]}, "labels[1]"),
    ],
)
async def test_a_long_text_is_cut_or_refused_by_whatever_takes_texts(
    connect: Connect, path: str, body: dict[str, Any], param: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        cut = await client.post(f"/v1/{path}", json=body)
        refused = await client.post(f"/v1/{path}", json={**body, "truncate": False})
    assert cut.status_code == 200
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (413, "text_too_long", param)


async def test_an_npy_says_in_a_header_which_texts_were_truncated(connect: Connect) -> None:
    headers = {"accept": "application/x-npy"}
    async with connect(FakeModel(text=TEXT)) as client:
        found = [
            (await client.post("/v1/embeddings", json={"input": texts}, headers=headers)).headers
            for texts in (["cat"], ["cat", LONG, "dog", LONG], [LONG] * 2048)
        ]
    truncated = [headers.get("x-truncated-items") for headers in found]
    assert truncated == [None, "[1, 3]", "2048"]


async def test_similarity_mixes_images_and_texts(connect: Connect) -> None:
    body = {"a": [image("#ff0000"), "#00ff00"], "b": ["#ff0000", image("#00ff00")]}
    pairwise = await post(connect, "similarity", body)
    assert pairwise["scores"] == pytest.approx([1, 1], abs=1e-6)
    matrix = await post(connect, "similarity", {**body, "mode": "matrix"})
    assert matrix["scores"][0] == pytest.approx([1, -1 / 3], abs=1e-6)


async def test_rank_finds_the_image_that_a_text_describes(connect: Connect) -> None:
    documents = [image("#0000ff"), image("#ff0000"), image("#00ff00")]
    body = await post(connect, "rank", {"query": "#00ff00", "documents": documents, "top_n": 1})
    assert body["results"] == [{"index": 2, "score": pytest.approx(1, abs=1e-6)}]


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
async def test_a_lone_surrogate_in_json_is_read_as_browsers_read_it(
    connect: Connect, escaped: str, read: str
) -> None:
    model = FakeModel(text=TEXT)
    async with connect(model) as client:
        headers = {"content-type": "application/json"}
        content = f'{{"a": [{{"text": "{escaped}"}}], "b": [{{"text": {json.dumps(read)}}}]}}'
        answer = await client.post("/v1/similarity", content=content, headers=headers)
    assert answer.json()["scores"] == pytest.approx([1], abs=1e-6)
    assert len(model.token_stacks[0]) == 1  # one text, spelt twice


async def test_a_large_body_is_not_searched_for_lone_surrogates(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        content = r'{"input": "\ud83d", "user": "' + r"\n" * (MAX_REPAIRED_BYTES // 2) + '"}'
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
async def test_a_bad_option_is_named_by_its_key(
    connect: Connect, path: str, body: dict[str, Any], param: str
) -> None:
    answer = await post(connect, path, body)
    assert (answer["error"]["code"], answer["error"]["param"]) == ("bad_request", param)
