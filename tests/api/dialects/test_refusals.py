"""What is refused before a dialect's endpoint runs has the dialect's shape of errors, too."""

import re
from typing import Any

import pytest

from deployments.api.dialects import DIALECTS
from deployments.api.endpoint import Dialect
from tests.api.colours import image
from tests.api.conftest import Connect
from tests.api.test_answers import check
from tests.api.test_auth import bearer, line
from tests.fakes import TEXT, FakeModel

PNG = "data:image/png;base64," + image("#ff0000")["base64"]
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


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embed", {"images": [PNG, PNG, PNG, "zzz"]}, "images[3]"),
        ("/v2/embed", {"inputs": [{"text": "a"}, {"content": [{"text": 7}]}]}, "inputs[1]"),
        ("/v1/rerank", {"query": "a", "documents": ["a", {"base64": "?"}]}, "documents[1]"),
        ("/v1/rerank", {"query": {"base64": "?"}, "documents": ["a"]}, "query"),
        ("/rerank", {"query": "a", "texts": ["a", 7]}, "texts[1]"),
        ("/embed", {"inputs": ["a", "data:image/png;base64,AAAA"]}, "inputs[1]"),
        ("/v1/multimodalembeddings", {"inputs": [{"text": "a"}, {}]}, "inputs[1]"),
        ("/vectorize", {"texts": ["a"], "images": [PNG, "?"]}, "images[1]"),
        (
            "/v2/models/fake/infer",
            {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", 7]}]},
            "text[1]",
        ),
    ],
)
async def test_the_message_names_the_bad_item_where_nothing_else_can(
    connect: Connect, path: str, body: dict[str, Any], param: str
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        answer = (await client.post(path, json=body)).json()
    messages = {answer[key] for key in ("error", "message", "detail") if key in answer}
    assert len(messages) == 1
    assert messages.pop().startswith(f"{param}: ")


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
