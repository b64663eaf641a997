"""Rerank in the forms of Cohere, Jina, Voyage, vLLM and text-embeddings-inference."""

from typing import Any

import numpy as np
import pytest

from tests.api.colours import image
from tests.api.conftest import Connect
from tests.api.dialects.asking import post
from tests.fakes import TEXT, FakeModel

RED = "a wall of #ff0000"
COLOURS = ["#0000ff", "#dd0000", "noise", "#ff0000"]
PATHS = ["/v1/rerank", "/v2/rerank", "/rerank"]
BY_PATH = pytest.mark.parametrize("path", PATHS)


def ranks(answer: dict[str, Any]) -> list[int]:
    return [result["index"] for result in answer["results"]]


@BY_PATH
async def test_scores_are_the_cosines_of_v1_similarity_best_first(
    connect: Connect, path: str
) -> None:
    answer = await post(connect, path, {"model": "fake", "query": RED, "documents": COLOURS})
    body = {"a": [RED], "b": COLOURS, "mode": "matrix"}
    [scores] = (await post(connect, "/v1/similarity", body))["scores"]
    assert ranks(answer) == np.argsort(-np.array(scores), kind="stable").tolist()
    for result in answer["results"]:
        assert result["relevance_score"] == scores[result["index"]]


@BY_PATH
async def test_the_answer_has_what_any_of_their_clients_reads(connect: Connect, path: str) -> None:
    answer = await post(connect, path, {"query": RED, "documents": ["#00ff00", "#ff0000"]})
    results = answer["results"]
    assert [set(result) for result in results] == [{"index", "relevance_score"}] * 2
    assert answer.pop("id")
    assert answer == {
        "object": "list",
        "model": "fake",
        "results": results,
        "data": results,
        "meta": {"billed_units": {"search_units": 1}},
        "usage": {"prompt_tokens": 17 + 7 + 7, "total_tokens": 17 + 7 + 7},
    }


@pytest.mark.parametrize(
    ("option", "number"),
    [({}, 4), ({"top_n": 2}, 2), ({"top_k": 3}, 3), ({"top_n": 0}, 4), ({"top_n": 9}, 4)],
)
async def test_the_best_are_answered(connect: Connect, option: dict[str, int], number: int) -> None:
    body = {"query": RED, "documents": COLOURS}
    everything = await post(connect, "/v1/rerank", body)
    answer = await post(connect, "/v1/rerank", {**body, **option})
    assert answer["results"] == everything["results"][:number]


async def test_images_and_texts_are_ranked_together_in_every_spelling(connect: Connect) -> None:
    red, uri = image("#ff0000"), "data:image/png;base64," + image("#0000ff")["base64"]
    documents = [
        "#0000ff",
        uri,
        {"text": "#ff0000"},
        red,
        {"image": red["base64"]},
        {"content": [{"type": "text", "text": "#ff0000"}]},
        {"content": None, "text": "#ff0000"},
        {"content": [{"type": "image_url", "image_url": {"url": uri}}]},
    ]
    for query in (RED, red, {"content": [{"type": "text", "text": RED}]}):
        answer = await post(connect, "/rerank", {"query": query, "documents": documents})
        assert sorted(ranks(answer)[:5]) == [2, 3, 4, 5, 6]


async def test_vllms_documents_may_be_the_parts_of_one_message(connect: Connect) -> None:
    parts = [{"type": "text", "text": colour} for colour in COLOURS]
    plain = await post(connect, "/v1/rerank", {"query": RED, "documents": COLOURS})
    answer = await post(connect, "/v1/rerank", {"query": RED, "documents": {"content": parts}})
    assert answer["results"] == plain["results"]


async def test_documents_come_back_as_sent_except_bytes(connect: Connect, jpeg: Any) -> None:
    documents = [image("#ff0000"), {"text": "#ff0000", "title": "a wall"}, "#0000ff"]
    body = {"query": RED, "documents": documents, "return_documents": True}
    results = (await post(connect, "/v2/rerank", body))["results"]
    found = {result["index"]: result.get("document") for result in results}
    assert found == {0: None, 1: {"text": "#ff0000"}, 2: {"text": "#0000ff"}}


async def test_under_cohere_rank_fields_only_the_text_of_a_document_is_read(
    connect: Connect,
) -> None:
    page = {"text": "#ff0000", "url": "https://example.org/a", "type": "page", "n": [1, {"a": 2.5}]}
    body = {"query": RED, "documents": [page, "#0000ff"], "rank_fields": ["text"]}
    plain = await post(connect, "/v1/rerank", {**body, "documents": ["#ff0000", "#0000ff"]})
    answer = await post(connect, "/v1/rerank", {**body, "return_documents": True})
    assert [result.pop("document") for result in answer["results"]] == [page, {"text": "#0000ff"}]
    assert answer["results"] == plain["results"]
    refused = await post(connect, "/v1/rerank", {**body, "documents": [{"text": 7}]}, 400)
    assert "text must be a string" in refused["message"]


async def test_documents_nested_too_deeply_to_be_written_are_refused(connect: Connect) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    body = {"query": RED, "documents": [{"text": "a", "deep": deep}], "rank_fields": ["text"]}
    await post(connect, "/v1/rerank", body)
    refused = await post(connect, "/v1/rerank", {**body, "return_documents": True}, 400)
    assert "nested too deeply" in refused["message"]


async def test_text_embeddings_inference_has_a_body_and_an_answer_of_its_own(
    connect: Connect,
) -> None:
    plain = await post(connect, "/rerank", {"query": RED, "documents": COLOURS})
    body = {"query": RED, "texts": COLOURS, "raw_scores": False, "truncation_direction": "Right"}
    answer = await post(connect, "/rerank", body)
    assert answer == [
        {"index": result["index"], "score": result["relevance_score"]}
        for result in plain["results"]
    ]
    answer = await post(connect, "/rerank", {**body, "return_text": True})
    assert [rank["text"] for rank in answer] == [COLOURS[rank["index"]] for rank in answer]


async def test_teis_body_is_refused_as_at_embed(connect: Connect) -> None:
    body = {"query": RED, "texts": COLOURS}
    empty = await post(connect, "/rerank", {**body, "texts": []}, 400)
    assert empty["error_type"] == "Empty"
    left = {**body, "truncation_direction": "Left"}
    assert await post(connect, "/rerank", left) == await post(connect, "/rerank", body)
    refused = await post(connect, "/rerank", {**left, "truncate": True}, 400)
    assert "at their end only" in refused["error"]


async def test_long_texts_are_truncated_unless_the_caller_forbids_it(connect: Connect) -> None:
    long = "long " * 20
    body = {"query": RED, "documents": [long]}
    await post(connect, "/v1/rerank", body)
    refused = await post(connect, "/v1/rerank", {**body, "truncation": False}, status=413)
    assert refused["message"].endswith("; shorten it, or let it be truncated.")
    await post(connect, "/rerank", {"query": RED, "texts": [long]}, status=413)
    await post(connect, "/rerank", {"query": RED, "texts": [long], "truncate": True})


async def test_as_many_tokens_as_the_model_reads_have_no_effect(connect: Connect) -> None:
    body = {"query": RED, "documents": ["long " * 20, *COLOURS]}
    expected = (await post(connect, "/v1/rerank", body))["results"]
    for tokens in (None, -1, 24):
        answer = await post(connect, "/v1/rerank", {**body, "truncate_prompt_tokens": tokens})
        assert answer["results"] == expected


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"query": RED}, 400, "documents is missing"),
        ({"documents": COLOURS}, 400, "query is missing"),
        ({"query": RED, "documents": []}, 400, "documents is empty"),
        ({"query": RED, "documents": "#ff0000"}, 400, "documents must be a list"),
        ({"query": RED, "documents": COLOURS, "top_n": -1}, 400, "top_n must be at least 0"),
        ({"query": RED, "documents": [{}]}, 400, "An item has exactly one"),
        ({"query": {"content": ["a", "b"]}, "documents": COLOURS}, 400, "exactly one part"),
        ({"query": RED, "documents": [{"content": "a", "url": "b"}]}, 400, "url stands beside"),
        ({"query": RED, "documents": {"content": None}}, 400, "documents must be a list"),
        ({"query": RED, "documents": COLOURS, "rank_fields": ["title"]}, 400, "rank_fields[0]"),
        ({"query": RED, "documents": COLOURS, "max_tokens_per_doc": 8}, 400, "max_tokens_per_doc"),
        (
            {"query": RED, "documents": COLOURS, "truncate_prompt_tokens": 23},
            *(400, "leave truncate_prompt_tokens out"),
        ),
        ({"query": RED, "documents": COLOURS, "truncation_side": "left"}, 400, "truncation_side"),
        ({"query": RED, "documents": COLOURS, "model": "rerank-v3.5"}, 404, "GET /v1/models"),
    ],
)
@BY_PATH
async def test_what_has_no_meaning_is_refused(
    connect: Connect, path: str, body: dict[str, Any], status: int, part: str
) -> None:
    answer = await post(connect, path, body, status)
    assert part in answer["message"]
    expected = dict.fromkeys(("message", "detail", "error"), answer["message"])
    assert answer == {**expected, "error_type": "Validation"}


async def test_too_many_documents_are_refused(connect: Connect) -> None:
    async with connect(FakeModel(text=TEXT), limits={"max_items": 3}) as client:
        body = {"query": RED, "documents": COLOURS}
        assert (await client.post("/v1/rerank", json=body)).status_code == 413
        body = {"query": RED, "documents": COLOURS[:2]}
        assert (await client.post("/v1/rerank", json=body)).status_code == 200
