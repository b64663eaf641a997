"""What is refused before a dialect's endpoint runs has the dialect's shape of errors, too."""

import re

import pytest

from deployments.api.dialects import DIALECTS
from deployments.api.endpoint import Dialect
from tests.api.conftest import Connect
from tests.api.test_answers import check
from tests.api.test_auth import bearer, line
from tests.fakes import TEXT, FakeModel

BY_DIALECT = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def path_of(dialect: Dialect) -> str:
    """Of one of its endpoints that take a body."""
    path = next(endpoint.path for endpoint in dialect.endpoints if endpoint.method == "POST")
    return re.sub(r"{model[^}]*}", "fake", path.replace("{version}", "1"))


@BY_DIALECT
async def test_a_call_without_a_key_or_too_soon_is_refused_in_its_shape(
    connect: Connect, dialect: Dialect
) -> None:
    path = path_of(dialect)
    async with connect(FakeModel(text=TEXT), auth={"keys": [line("s", rate="1/minute")]}) as client:
        stranger = await client.post(path, json={})
        await client.post(path, json={}, headers=bearer("s"))
        soon = await client.post(path, json={}, headers=bearer("s"))
    assert (stranger.status_code, soon.status_code) == (401, 429)
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert int(soon.headers["retry-after"]) >= 1
    for answer in (stranger, soon):
        assert answer.headers["server-timing"].startswith("total;dur=")
        check(answer.json(), dialect.error_answer)


@BY_DIALECT
async def test_a_large_body_or_another_method_is_refused_in_its_shape(
    connect: Connect, dialect: Dialect
) -> None:
    path = path_of(dialect)
    async with connect(FakeModel(text=TEXT), limits={"max_body_bytes": 1024}) as client:
        large = await client.post(path, json={"text": "a" * 2000})
        other = await client.put(path, json={})
    assert large.status_code in (413, 415)  # 415 of those that take forms alone
    assert other.status_code == 405
    for answer in (large, other):
        assert answer.headers["server-timing"].startswith("total;dur=")
        check(answer.json(), dialect.error_answer)
