"""Pages of other origins may call the API from a browser where the settings say so."""

from typing import Any

import pytest

from tests.api.conftest import Connect

PAGE = "https://app.example"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
KEYS = {"keys": [{"name": "ci", "sha256": "0" * 64}]}


@pytest.mark.parametrize("origins", [[PAGE], ["*"], ["https://other.example", PAGE]])
@pytest.mark.parametrize("auth", [{}, KEYS])
async def test_a_preflight_of_an_allowed_origin_is_answered(
    connect: Connect, origins: list[str], auth: dict[str, Any]
) -> None:
    async with connect(api={"cors_origins": origins}, auth=auth) as client:
        answer = await client.options("/v1/embeddings", headers=PREFLIGHT)
        response = await client.get("/v1/models", headers={"origin": PAGE})
    assert answer.status_code == 200
    for found in (answer, response):
        assert found.headers["access-control-allow-origin"] in (PAGE, "*")
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "X-Request-Id" in response.headers["access-control-expose-headers"]


async def test_an_error_can_be_read_by_the_page_as_well(connect: Connect) -> None:
    async with connect(api={"cors_origins": [PAGE]}) as client:
        response = await client.post("/v1/embeddings", json={}, headers={"origin": PAGE})
    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origins", [[], ["https://other.example"]])
async def test_other_origins_are_not_allowed(connect: Connect, origins: list[str]) -> None:
    async with connect(api={"cors_origins": origins}) as client:
        answer = await client.options("/v1/embeddings", headers=PREFLIGHT)
        response = await client.get("/v1/models", headers={"origin": PAGE})
    assert answer.status_code in (400, 405)
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in response.headers
