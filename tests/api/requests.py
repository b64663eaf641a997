"""A POST to /v1/embeddings, items for it, and the error in its answer."""

import base64
from typing import Any

import httpx


def b64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json=body)


def error(response: httpx.Response) -> dict[str, Any]:
    content = response.json()["error"]
    assert content["request_id"] == response.headers["x-request-id"]
    assert isinstance(content, dict)
    return content
