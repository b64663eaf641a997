"""Endpoints answer with exactly the keys that `answers` declares."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from deployments.api import answers
from deployments.api.dialects import (
    DIALECTS,
    cohere,
    contents,
    rerank,
    tei,
    tensors,
    vllm,
    voyage,
    weaviate,
)
from deployments.api.endpoints import NATIVE
from deployments.api.openapi import openapi
from tests.api.colours import image
from tests.api.conftest import Connect
from tests.fakes import PATCHES, TEXT, FakeModel

RED, LONG = "a wall of #ff0000", "long " * 20
RED_URI = "data:image/png;base64," + image("#ff0000")["base64"]
TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [RED]}
RERANK = {"query": RED, "return_documents": True}

CASES: list[tuple[str, str, dict[str, Any] | None, Any]] = [
    ("POST", "/v1/embeddings", {"input": [RED, LONG]}, answers.Embeddings),
    ("POST", "/v1/embeddings", {"input": RED, "encoding_format": "base64"}, answers.Embeddings),
    (
        *("POST", "/embeddings"),
        {"input": RED, "embedding_type": ["float", "base64", "binary", "ubinary"]},
        answers.Embeddings,
    ),
    (
        *("POST", "/v1/embeddings"),
        {"input": [RED, {"base64": "?"}], "on_error": "report"},
        answers.Embeddings,
    ),
    ("POST", "/v1/similarity", {"a": [RED], "b": [RED]}, answers.Similarity),
    ("POST", "/v1/similarity", {"a": [RED], "b": [RED], "mode": "matrix"}, answers.Similarity),
    ("POST", "/v1/rank", {"query": RED, "documents": [RED, LONG]}, answers.Rank),
    ("POST", "/v1/classify", {"input": RED, "labels": ["a", "b"]}, answers.Classification),
    ("GET", "/v1/models", None, answers.ModelList),
    ("GET", "/v1/models/fake", None, answers.Model),
    ("GET", "/livez", None, answers.Alive),
    ("GET", "/readyz", None, answers.Ready),
    ("POST", "/vectorize", {"texts": [RED]}, weaviate.Vectorized),
    ("GET", "/meta", None, answers.Model),
    ("POST", "/vectorize", {"images": ["?"]}, contents.StringError),
    ("POST", "/predict", {}, contents.DetailError),
    ("GET", "/nowhere", None, answers.Error),
    ("POST", "/v1/embeddings", {"input": [{"base64": "?"}, RED]}, answers.Error),
    ("POST", "/v1/embed", {"texts": [RED, LONG]}, cohere.CohereFloats),
    ("POST", "/v2/embed", {"images": [RED_URI], "embedding_types": TYPES}, cohere.CohereByType),
    ("POST", "/v2/embed", {}, cohere.CohereError),
    ("POST", "/v1/rerank", {**RERANK, "documents": [RED, LONG]}, rerank.Reranked),
    ("POST", "/rerank", {"query": RED, "texts": [RED], "return_text": True}, [rerank.TeiRank]),
    ("POST", "/rerank", {}, rerank.RerankError),
    ("POST", "/v1/multimodalembeddings", {"inputs": [RED_URI]}, voyage.VoyageEmbeddings),
    ("POST", "/v1/multimodalembeddings", {}, contents.DetailError),
    ("GET", "/info", None, tei.TeiInfo),
    ("POST", "/embed", {"inputs": []}, tei.TeiError),
    ("POST", "/score", {"queries": RED, "documents": [RED]}, vllm.VllmScores),
    ("GET", "/v2", None, tensors.OipServer),
    ("GET", "/v2/health/live", None, tensors.OipLive),
    ("GET", "/v2/health/ready", None, tensors.OipReady),
    ("GET", "/v2/models/fake", None, tensors.OipModel),
    ("GET", "/v2/models/fake/ready", None, tensors.OipModelReady),
    ("POST", "/v2/models/fake/infer", {"inputs": [TENSOR]}, tensors.InferAnswer),
    ("POST", "/v2/models/fake/infer", {"inputs": []}, contents.StringError),
]


@pytest.mark.parametrize(("method", "path", "body", "kind"), CASES)
async def test_an_answer_has_the_declared_keys_and_no_others(
    connect: Connect, method: str, path: str, body: dict[str, Any] | None, kind: Any
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.request(method, path, json=body)
    answer = response.json()
    if isinstance(kind, list):
        [answer], [kind] = answer, kind
    assert (response.status_code >= 400) == kind.__name__.endswith("Error")
    check(answer, kind)


@pytest.mark.parametrize(
    "options",
    [{}, {"encoding_format": "base64"}, {"embedding_type": ["float", "base64", "ubinary"]}],
)
async def test_several_vectors_have_the_declared_keys_and_no_others(
    connect: Connect, options: dict[str, Any]
) -> None:
    async with connect(FakeModel(PATCHES)) as client:
        response = await client.post("/v1/embeddings", json={"input": RED_URI, **options})
        listed = await client.get("/v1/models")
    check(response.json(), answers.Embeddings)
    check(listed.json(), answers.ModelList)


def test_an_undeclared_key_would_be_noticed() -> None:
    row = {"index": 0, "score": 1.0, "extra": 1}
    with pytest.raises(ValidationError, match="extra"):
        check({"object": "list", "model": "fake", "results": [row]}, answers.Rank)


def check(answer: Any, kind: Any) -> None:
    """Raises ValidationError unless `answer` has the keys of `kind` and no others."""
    components = closed(openapi((NATIVE, *DIALECTS))["components"])
    reference = {"$ref": f"#/components/schemas/{kind.__name__}", "components": components}
    Draft202012Validator(reference).validate(answer)


def closed(schema: Any) -> Any:
    """The schema, with all keys forbidden that it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(part) for key, part in schema.items()}
    return {**found, "additionalProperties": False} if schema.get("type") == "object" else found
