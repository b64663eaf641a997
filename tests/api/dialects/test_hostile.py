"""Whatever is sent to a dialect, it is answered or refused in the dialect's own shape."""

import pytest

from deployments.api.dialects import DIALECTS
from deployments.api.endpoint import Dialect
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
