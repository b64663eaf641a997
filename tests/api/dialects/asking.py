"""Requests to a service of their own, with a model that reads texts."""

from typing import Any

import numpy as np

from tests.api.conftest import Connect
from tests.fakes import TEXT, FakeModel


async def post(connect: Connect, path: str, body: dict[str, Any], status: int = 200) -> Any:
    async with connect(FakeModel(text=TEXT)) as client:
        response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def vectors(connect: Connect, *items: Any) -> np.ndarray[Any, Any]:
    body = await post(connect, "/v1/embeddings", {"input": items})
    return np.array([entry["embedding"] for entry in body["data"]], np.float32)
