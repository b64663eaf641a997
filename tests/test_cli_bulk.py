"""`raylens bulk` says what is wrong before it starts a Ray, and how it is called."""

from pathlib import Path

import pytest

from raylens import bulk
from tests.commands import ended, raylens, sentence


@pytest.mark.parametrize("replicas", ["0", "2:1", "many", "1:2:3"])
def test_a_wrong_number_of_replicas_is_a_usage_error(replicas: str) -> None:
    result = raylens("bulk", "photos", "out", "--replicas", replicas)
    assert ended(result) == 2
    assert "as in 1:8" in sentence(result)


def test_a_config_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    result = raylens("bulk", "photos", "out", "--config", str(tmp_path / "missing.yaml"))
    assert ended(result) == 2
    assert "cannot read" in sentence(result)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (bulk.BulkError("no model"), 1),
        (ConnectionError("nothing answers"), 3),
        (KeyboardInterrupt(), 1),
    ],
)
def test_what_ends_the_run_is_a_sentence_and_an_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(bulk, "run", run)
    result = raylens("bulk", "photos", "out")
    assert ended(result) == code
    assert sentence(result).startswith("raylens: ")


def test_the_help_has_an_example() -> None:
    assert "raylens bulk s3://bucket/photos s3://bucket/vectors" in raylens("bulk", "--help").stdout
