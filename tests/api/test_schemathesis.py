"""The service keeps to its own OpenAPI document, whatever request the document allows."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from deployments.api.fence import Fence
from deployments.api.routes import Api
from tests.fakes import TEXT, FakeModel, service

# Without the page, which is not in the document: a GET of `/`, where clients of TEI post to.
app = Fence(Api(service(FakeModel(text=TEXT), api={"page": False})).app())
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_answers_are_as_the_document_says(case: Case[Any]) -> None:
    # A request that fits the schema may still be refused: no schema says which strings are images.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
