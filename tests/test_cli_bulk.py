"""`raylens bulk` says what is wrong before it starts a Ray, and how it is called."""

from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from deployments.checkpoints.checkpoint import CheckpointError
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
        (KeyboardInterrupt(), 130),
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
    if code == 130:
        assert "the same command goes on" in sentence(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--service", "http://127.0.0.1:9", "--model", "a/b"], "leave out --model"),
        (["--service", "auto", "--config", "serve.yaml"], "leave out --model and --config"),
        (["--address", "head:6379", "--cpus", "4"], "the one at head:6379"),
    ],
)
def test_options_that_would_do_nothing_are_usage_errors(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "run", lambda *_, **__: pytest.fail("it ran"))
    result = raylens("bulk", "photos", "out", *options)
    assert ended(result) == 2
    assert said in sentence(result)


def test_a_service_that_is_lost_is_found_in_what_ray_makes_of_it() -> None:
    lost = RayTaskError("f", "Traceback\n...", ConnectionError("nothing answers"))
    with pytest.raises(ConnectionError, match=r"^nothing answers$"), bulk._explained():
        raise lost.as_instanceof_cause()


def test_a_model_that_cannot_be_downloaded_is_no_lost_service() -> None:
    error = CheckpointError("the model cannot be downloaded")
    error.__cause__ = ConnectionError("nothing answers")
    wrapped = RayTaskError("f", "Traceback\n...", error)
    with pytest.raises(bulk.BulkError, match="the model cannot be"), bulk._explained():
        raise wrapped.as_instanceof_cause()


def test_the_help_has_an_example() -> None:
    assert "raylens bulk s3://bucket/photos s3://bucket/vectors" in raylens("bulk", "--help").stdout
