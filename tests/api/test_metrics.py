"""Requests are counted by endpoint, dialect and outcome, and never by what a caller sent."""

from typing import Any

import httpx

from deployments.api.fence import Fence
from deployments.api.routes import Api
from deployments.metrics.declared import IngressMetrics
from tests.fakes import service


async def counted(*requests: tuple[str, str, Any], **sections: Any) -> IngressMetrics:
    opened = service(**sections)
    transport = httpx.ASGITransport(app=Fence(Api(opened).app()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for method, path, body in requests:
            await client.request(method, path, json=body)
    return opened.metrics


async def test_a_request_counts_by_its_endpoint_its_dialect_and_its_outcome() -> None:
    metrics = await counted(
        ("POST", "/v1/embeddings", {"input": 7}),
        ("POST", "/v2/embed", {"images": 7}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/my-own-words", None),
    )
    assert metrics.requests.values == {
        ("/v1/embeddings", "raylens", "invalid_item"): 1,
        ("/v2/embed", "cohere", "bad_request"): 1,
        ("/v1/models", "raylens", "ok"): 1,
        ("/v1/models/{model:path}", "raylens", "model_not_found"): 1,
    }
    assert {endpoint for (endpoint,) in metrics.request_seconds.values} == {
        "/v1/embeddings",
        "/v2/embed",
        "/v1/models",
        "/v1/models/{model:path}",
    }


async def test_what_no_endpoint_had_is_counted_without_a_time() -> None:
    metrics = await counted(("GET", "/my/own/path", None), ("GET", "/v1/embeddings", None))
    assert metrics.requests.values == {
        ("unknown", "raylens", "not_found"): 1,
        ("/v1/embeddings", "raylens", "method_not_allowed"): 1,
    }
    assert metrics.request_seconds.values == {}


async def test_health_checks_are_not_counted() -> None:
    metrics = await counted(("GET", "/livez", None), ("GET", "/readyz", None))
    assert metrics.requests.values == {}


async def test_a_request_without_a_valid_key_is_counted() -> None:
    keys = [{"name": "app", "sha256": "0" * 64}]
    metrics = await counted(("POST", "/v1/rank", {}), auth={"keys": keys})
    assert metrics.requests.values == {("/v1/rank", "raylens", "unauthorized"): 1}
