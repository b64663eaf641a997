"""Operators see why an item failed, once in a while; callers never do."""

import logging
import pickle
import sys
import time

import pytest

from deployments.errors import CorruptImage, FetchBadGateway, Internal, RaylensError
from deployments.service import causes
from deployments.service.causes import CallerErrorFilter, CauseLog

DEAD = FetchBadGateway("No connection.", cause="ConnectionRefusedError: from http://10.0.0.1")


def said(*errors: RaylensError) -> list[str]:
    lines: list[str] = []
    log = CauseLog(lines.append)
    for error in errors:
        log.note(error)
    return lines


def test_a_cause_is_logged_with_the_code() -> None:
    assert said(DEAD) == [
        "An item failed with fetch_bad_gateway: ConnectionRefusedError: from http://10.0.0.1"
    ]


def test_an_error_that_tells_its_caller_everything_is_not_logged() -> None:
    assert said(CorruptImage("The image is empty: there are no bytes.")) == []


def test_each_kind_is_logged_only_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    lines: list[str] = []
    log = CauseLog(lines.append)
    for _ in range(50):
        log.note(DEAD)
    log.note(CorruptImage("Broken.", cause="OSError: broken data stream"))
    assert len(lines) == 2
    clock += causes.EVERY_S
    log.note(DEAD)
    assert lines[2].endswith("http://10.0.0.1 (49 more of the kind since the last line)")


def test_a_cause_can_neither_forge_log_lines_nor_be_endless() -> None:
    (line,) = said(
        FetchBadGateway("No.", cause="odd: \n2026 ERROR all is lost \x1b[31m" + "x" * 999)
    )
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < causes.MAX_CHARS + 100


def test_a_caller_in_another_process_does_not_get_the_cause() -> None:
    outer = CorruptImage("Broken.", param="input", cause="secret", items=((0, DEAD),))
    got = pickle.loads(pickle.dumps(outer))
    assert (got.message, got.param, got.cause) == ("Broken.", "input", None)
    assert got.items[0][1].cause is None


@pytest.mark.parametrize(
    ("error", "kept"), [(DEAD, True), (Internal("x"), True), (ValueError(), True)]
)
def test_the_traceback_of_a_server_error_is_logged(error: Exception, kept: bool) -> None:
    assert passes(error) is kept


def test_the_traceback_of_a_callers_error_is_not_logged() -> None:
    assert not passes(CorruptImage("Broken."))


def test_lines_without_an_error_are_logged() -> None:
    assert CallerErrorFilter().filter(logging.makeLogRecord({"msg": "hello"}))


def passes(error: Exception) -> bool:
    try:
        raise error
    except Exception:
        record = logging.makeLogRecord({"msg": "Request failed.", "exc_info": sys.exc_info()})
    return bool(CallerErrorFilter().filter(record))
