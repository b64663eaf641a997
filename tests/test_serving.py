"""`raylens serve` reads its config and refuses what could not start, before Ray starts."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylens import serving
from raylens.cluster import free_port
from raylens.serving import ServingError, default_config, read_config
from raylens.stopping import stop_signals

GOOD = """
applications:
  - name: raylens
    import_path: deployments.app:build_app
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "config.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


Write = Callable[[str | bytes], Path]


# Configs


def test_the_default_config_serves_the_application_on_loopback() -> None:
    chosen = read_config(default_config(), host=None, port=None)
    assert [a["import_path"] for a in chosen["applications"]] == ["deployments.app:build_app"]
    assert chosen["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_host_and_port_options_replace_those_of_the_config(config: Write) -> None:
    path = config(GOOD + "http_options: {host: 10.0.0.1, port: 9000, request_timeout_s: 5}")
    http = {"host": "10.0.0.1", "port": 9000, "request_timeout_s": 5}
    assert read_config(path, host=None, port=None)["http_options"] == http
    given = read_config(path, host="0.0.0.0", port=81)["http_options"]
    assert given == {**http, "host": "0.0.0.0", "port": 81}


@pytest.mark.parametrize("ending", ["", "http_options: {}", "http_options:"])
def test_a_config_without_an_address_listens_on_loopback(config: Write, ending: str) -> None:
    http = read_config(config(GOOD + ending), host=None, port=None)["http_options"]
    assert http == {"host": "127.0.0.1", "port": 8000}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("applications: [", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        (b"\x00\x01", "is not valid YAML"),
        (b"\xff\xd8\xff\xe0 a photo", "is not valid YAML"),
        ("", "has no applications"),
        ("- a list", "has no applications"),
        ("proxy_location: EveryNode", "has no applications"),
        ("applications: []", "has no applications"),
        ("applications: raylens", "has no applications"),
        ("applications: [raylens]", "has no applications"),
    ],
)
def test_a_file_that_is_no_serve_config_is_refused(
    config: Write, text: str | bytes, reason: str
) -> None:
    path = config(text)
    with pytest.raises(ServingError, match=reason) as caught:
        read_config(path, host=None, port=None)
    assert str(path) in str(caught.value)


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    with pytest.raises(ServingError, match="No such file") as caught:
        read_config(path, host=None, port=None)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="Is a directory"):
        read_config(tmp_path, host=None, port=None)


@pytest.mark.parametrize(
    ("prefix", "path"), [(None, ""), ("/", ""), ("/lens", "/lens"), ("/lens/", "/lens")]
)
def test_the_service_is_asked_below_its_route_prefix(prefix: str | None, path: str) -> None:
    other = {"name": "other", "import_path": "other:app", "route_prefix": "/other"}
    ours = {"import_path": "deployments.app:build_app", "route_prefix": prefix}
    assert serving.route_prefix({"applications": [other, ours]}) == path


@pytest.mark.parametrize("port", ["70000", "-1", "http", "80.5", "true"])
def test_an_impossible_port_is_refused(config: Write, port: str) -> None:
    path = config(f"{GOOD}http_options: {{port: {port}}}")
    with pytest.raises(ServingError, match="port"):
        read_config(path, host=None, port=None)


# What is checked before Ray starts


def check(*applications: dict[str, Any], told_to_stop_after_s: float | None = None) -> None:
    whole = [{"import_path": serving.IMPORT_PATH, **application} for application in applications]
    with stop_signals() as stop:
        if told_to_stop_after_s is not None:
            threading.Timer(told_to_stop_after_s, stop.set).start()
        serving._check_models({"applications": whole}, stop)


def test_the_default_config_passes() -> None:
    check(*read_config(default_config(), host=None, port=None)["applications"])


@pytest.mark.parametrize(
    ("application", "sentence"),
    [
        ({"args": {"model": {"device": "gpu"}}}, "model.device: Input should be 'auto', 'cpu' or"),
        ({"args": {"modell": {}}}, "modell: no such setting"),
        ({"args": {"model": {"id": "/nowhere"}}}, "model '/nowhere': there is no such folder"),
        ({"args": {"models": [{"id": "/nowhere"}]}}, "model '/nowhere': there is no such folder"),
        (
            {"runtime_env": {"env_vars": {"RAYLENS_MODEL__ID": "/nowhere"}}},
            "model '/nowhere': there is no such folder",
        ),
    ],
)
def test_an_application_that_could_not_start_is_refused_with_the_reason(
    application: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ServingError) as caught:
        check(application)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_of_several_applications_the_one_that_could_not_start_is_named() -> None:
    wrong = {"name": "second", "args": {"model": {"device": "gpu"}}}
    with pytest.raises(ServingError, match=r"^second: model\.device: Input"):
        check({"name": "first"}, wrong)


@pytest.mark.parametrize(
    "application",
    [
        {"import_path": "theirs:app", "args": {"model": 7}},
        {"args": "not a mapping"},  # Serve's own schema says so
        {"runtime_env": "s3://somewhere.zip"},
        {"args": None, "runtime_env": None},
        {"args": {}, "runtime_env": {"env_vars": None}},
    ],
)
def test_what_is_not_ours_to_judge_is_left_to_ray(application: dict[str, Any]) -> None:
    check(application)


def test_a_wrong_setting_stops_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "local_ray", None)
    monkeypatch.setenv("RAYLENS_MODEL__DEVICE", "gpu")
    config = read_config(default_config(), host=None, port=free_port())
    with pytest.raises(ServingError, match=r"^model\.device: Input"):
        serving.run(config, address=None, wait_s=1)


def test_a_check_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ServingError, match="checking the models ended with 1"):
        check({})


def test_a_stop_ends_the_check_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    began = time.monotonic()
    check({}, told_to_stop_after_s=0.3)
    assert time.monotonic() - began < 10
