"""Whatever is sent to a dialect, it is answered or refused in the dialect's own shape."""

import typing
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from deployments.api.dialects import DIALECTS
from deployments.api.endpoint import Dialect
from deployments.api.endpoints import NATIVE
from tests.api.conftest import Connect
from tests.api.test_answers import check
from tests.fakes import TEXT, FakeModel
from tests.hostile.attack import LEAKS
from tests.hostile.dialects import all_odd


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_odd_bodies_are_never_more_than_refused(connect: Connect, dialect: Dialect) -> None:
    odd = [o for o in all_odd("fake") if dialect.is_at(o.path)]
    assert odd
    statuses = set()
    async with connect(FakeModel(text=TEXT)) as client:
        for request in odd:
            answer = await client.post(request.path, content=request.body, headers=request.headers)
            assert answer.status_code < 500, (request.name, answer.text)
            statuses.add(answer.status_code)
            if answer.status_code != 200:
                check(answer.json(), dialect.error_answer)
                assert not LEAKS.search(answer.content), (request.name, answer.text)
    assert statuses - {415}, "no body was of a type that is read"


def bodies() -> set[type[BaseModel]]:
    """The bodies of all endpoints, and the models inside them."""
    found: set[type[BaseModel]] = set()

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.add(kind)
            for field in kind.model_fields.values():
                walk(field.annotation)
        for inner in typing.get_args(kind):
            walk(inner)

    for dialect in (NATIVE, *DIALECTS):
        for endpoint in dialect.endpoints:
            walk(endpoint.body)
    return found


@pytest.mark.parametrize("body", sorted(bodies(), key=str), ids=lambda body: body.__name__)
def test_a_list_is_read_no_further_than_its_first_wrong_element(body: type[BaseModel]) -> None:
    wrong = {name: [{"?": object()}] * 1000 for name in body.model_fields}
    with pytest.raises(ValidationError) as caught:
        body.model_validate(wrong, strict=True)
    assert caught.value.error_count() < 100


async def test_vectors_of_a_type_are_made_once_however_often_it_is_asked_for(
    connect: Connect,
) -> None:
    async with connect(FakeModel(text=TEXT)) as client:
        body = {"texts": ["a"], "embedding_types": ["int8", "float"] * 100_000}
        answer = await client.post("/v2/embed", json=body, timeout=5)
    assert list(answer.json()["embeddings"]) == ["int8", "float"]
