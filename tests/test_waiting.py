"""`raylens serve` waits until the service is ready, or says why it is not; later, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from raylens import serving
from raylens.failures import failures
from raylens.serving import ServingError
from raylens.stopping import Stop, stop_signals
from tests.answering import answering

# What Serve says of an application and of its deployment, with Ray's tracebacks in it.
BUILD_FAILED = """\
Deploying app 'raylens' failed with exception:
Traceback (most recent call last):
  File "/x/ray/serve/_private/application_state.py", line 1800, in build_serve_application
    app = call_user_app_builder_with_args_if_necessary(import_attr(import_path), args)
  File "/x/deployments/settings.py", line 140, in load_settings
    raise SettingsError("; ".join(_sentence(e) for e in error.errors())) from None
deployments.settings.SettingsError: model.device: Input should be 'auto', 'cpu' or 'cuda'
"""
START_FAILED = """\
The deployment failed to start 3 times in a row. This may be due to a problem with its \
constructor or initial health check failing. See controller logs for details. Error:
ray::ServeReplica:raylens:Embedder.initialize_and_get_metadata() (pid=1, ip=127.0.0.2)
  File "/x/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
  File "/x/ray/serve/_private/replica.py", line 1984, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/x/deployments/models/finding.py", line 60, in find_checkpoint
    raise CheckpointError(f"model {id!r}: there is no such folder on this machine")
deployments.checkpoints.checkpoint.CheckpointError: model '/nowhere': there is no such folder

"""


def failed(message: str = "", **deployments: str) -> dict[str, Any]:
    return {
        "status": "DEPLOY_FAILED",
        "message": message,
        "deployments": {name: {"message": text} for name, text in deployments.items()},
    }


@pytest.mark.parametrize(
    ("application", "reason"),
    [
        (failed(BUILD_FAILED), "model.device: Input should be 'auto', 'cpu' or 'cuda'"),
        (
            failed("Failed to update the deployments ['Embedder'].", Embedder=START_FAILED),
            "model '/nowhere': there is no such folder",
        ),
        (
            failed("", Ingress="", Embedder=START_FAILED),
            "model '/nowhere': there is no such folder",
        ),
        (
            failed("Failed to update the deployments ['Embedder']."),
            "Failed to update the deployments ['Embedder'].",
        ),
        (failed("", Embedder="Replica died."), "Replica died."),
        (failed(), "DEPLOY_FAILED"),
        (
            failed(f"{BUILD_FAILED}\nCalled by:\nValueError"),
            "model.device: Input should be 'auto', 'cpu' or 'cuda'",
        ),
    ],
)
def test_the_reason_is_the_sentence_of_the_innermost_error(
    application: dict[str, Any], reason: str
) -> None:
    assert failures({"raylens": application}) == [reason]


class FakeServe:
    """A client of Serve's REST API whose answers follow a script; the last one stays."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)

    def get_serve_details(self) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"applications": answer}


@contextmanager
def service(*statuses: int) -> Iterator[str]:
    """The address of a service whose answers have these statuses, the last one again and again."""
    left = list(statuses)

    def answer(path: str) -> tuple[int, bytes]:
        status = left.pop(0) if len(left) > 1 else left[0]
        return (status if path == "/readyz" else 404), b""

    with answering(answer) as url:
        yield url


@pytest.fixture
def stop() -> Iterator[Stop]:
    with stop_signals() as stop:
        yield stop


RUNNING = {"raylens": {"status": "RUNNING", "message": ""}}
DEPLOYING = {"raylens": {"status": "DEPLOYING", "message": ""}}
NOWHERE = "http://127.0.0.1:9"


def test_waiting_ends_when_serve_runs_all_and_the_service_says_it_is_ready(stop: Stop) -> None:
    client = FakeServe({}, DEPLOYING, RUNNING)
    with service(503, 200) as url:
        serving._wait_until_ready(client, url, stop, 20)
    assert client.answers == [RUNNING]


def test_waiting_ends_with_the_reason_when_the_deployment_fails(stop: Stop) -> None:
    client = FakeServe(DEPLOYING, {"raylens": failed(BUILD_FAILED)})
    with pytest.raises(ServingError, match=r"^model\.device: Input"):
        serving._wait_until_ready(client, NOWHERE, stop, 20)


def test_of_several_applications_the_one_that_failed_is_named(stop: Stop) -> None:
    client = FakeServe({**RUNNING, "other": failed(BUILD_FAILED)})
    with pytest.raises(ServingError, match=r"^other: model\.device: Input"):
        serving._wait_until_ready(client, NOWHERE, stop, 20)


@pytest.mark.parametrize("applications", [DEPLOYING, RUNNING, {}])
def test_waiting_gives_up_after_a_while(applications: dict[str, Any], stop: Stop) -> None:
    with pytest.raises(ServingError, match=r"not ready after 0\.1 s"):
        serving._wait_until_ready(FakeServe(applications), NOWHERE, stop, 0.1)


def test_waiting_ends_when_told_to_stop(stop: Stop) -> None:
    stop.set()
    serving._wait_until_ready(FakeServe(DEPLOYING), NOWHERE, stop, 20)


def test_the_service_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("NO_PROXY", "")
    with service(200) as url:
        serving._wait_until_ready(FakeServe(RUNNING), url, stop, 1)


def test_later_it_says_once_why_an_update_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: Stop
) -> None:
    monkeypatch.setattr(serving, "WATCH_EVERY_S", 0.01)
    broken = {"raylens": failed("Failed to update …", Embedder=START_FAILED)}
    again = {"raylens": failed(BUILD_FAILED)}
    gone = ConnectionError()
    client = FakeServe(RUNNING, broken, broken, gone, broken, RUNNING, again, broken, gone)
    with pytest.raises(ServingError, match="stopped answering"):
        serving._watch(client, stop)
    shown = capsys.readouterr().err
    assert shown.count("model '/nowhere': there is no such folder") == 2
    assert shown.count("model.device: Input should be") == 1
