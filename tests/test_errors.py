"""Errors have the codes and statuses of the contract, and keep them on their way through Ray."""

import pickle

import pytest

from deployments import errors
from deployments.errors import CorruptImage, PathNotFound, RaylensError, UrlForbidden

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, RaylensError)
]

# API.md's table; a code that is missing here is not in the contract.
CONTRACT = {
    400: {
        "bad_request",
        "invalid_item",
        "bad_url",
        "bad_base64",
        "dimensions_unsupported",
        "text_unsupported",
    },
    401: {"unauthorized"},
    403: {"url_forbidden"},
    404: {"path_not_found", "model_not_found", "not_found"},
    405: {"method_not_allowed"},
    406: {"not_acceptable"},
    413: {"body_too_large", "image_too_large", "text_too_long", "too_many_items"},
    415: {"unsupported_image", "unsupported_media_type"},
    422: {"corrupt_image", "fetch_failed"},
    429: {"overloaded", "rate_limited"},
    500: {"internal"},
    502: {"fetch_bad_gateway"},
    503: {"unavailable"},
    504: {"fetch_timeout", "deadline_exceeded"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_has_a_code_of_the_contract_at_its_status(kind: type[RaylensError]) -> None:
    assert kind.code in CONTRACT[kind.status]


def test_every_code_of_the_contract_has_an_error() -> None:
    assert {kind.code for kind in KINDS} == set().union(*CONTRACT.values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_pickles_with_all_it_knows(kind: type[RaylensError]) -> None:
    error = kind("Why.", param="input[3]", retry_after_s=2, items=((3, CorruptImage("Bad.")),))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.param, again.retry_after_s) == (error.message, "input[3]", 2)
    assert again.items[0][1].message == "Bad."


def test_an_error_that_ray_raises_at_the_caller_keeps_its_code_and_status() -> None:
    from ray.exceptions import RayTaskError

    remote = RayTaskError("embed", "Traceback …", CorruptImage("Bad.", param="input"))
    error = remote.as_instanceof_cause()
    assert isinstance(error, CorruptImage)
    assert (error.code, error.status, error.message) == ("corrupt_image", 422, "Bad.")
    assert (error.param, error.retry_after_s) == ("input", None)


def test_refusals_have_one_text_whatever_the_reason() -> None:
    assert UrlForbidden("10.0.0.1 is private").message == UrlForbidden("no").message
    assert PathNotFound("/etc is outside").message == PathNotFound("no").message
