"""The service keeps to its own OpenAPI document, whatever that lets one send."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from deployments.api.fence import Fence
from deployments.api.routes import Api
from tests.fakes import TEXT, FakeModel, service

app = Fence(Api(service(FakeModel(text=TEXT))).app())
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_answers_are_as_the_document_says(case: Case[Any]) -> None:
    # What no schema says, such as whether a string is an image, may be refused all the same.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
