"""How `raylens serve` reads its config, waits, explains a failure and shows logs; without Ray."""

import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from raylens import cluster, serving
from raylens.cluster import free_port, serve_environment
from raylens.logs import LogFollower
from raylens.serving import ServingError, default_config, read_config

GOOD = """
applications:
  - name: raylens
    import_path: deployments.app:build_app
"""

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


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "config.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


Write = Callable[[str | bytes], Path]


@contextmanager
def listener() -> Iterator[int]:
    """A port on which someone listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


# Configs


def test_the_default_config_serves_the_application_on_loopback() -> None:
    chosen = read_config(default_config(), host=None, port=None)
    assert [a["import_path"] for a in chosen["applications"]] == ["deployments.app:build_app"]
    assert chosen["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_host_and_port_of_the_caller_replace_those_of_the_config(config: Write) -> None:
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


@pytest.mark.parametrize("port", ["70000", "-1", "http", "80.5", "true"])
def test_a_port_that_cannot_be_one_is_refused(config: Write, port: str) -> None:
    path = config(f"{GOOD}http_options: {{port: {port}}}")
    with pytest.raises(ServingError, match="port"):
        read_config(path, host=None, port=None)


# Ports


def test_a_free_port_is_one_where_no_one_listens() -> None:
    with listener() as port:
        found = free_port()
        assert found != port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", found))


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with listener() as port, pytest.raises(ServingError, match="--port") as caught:
        serving._refuse_taken_port("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "in use" in str(caught.value)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ServingError, match=r"cannot listen on 192\.0\.2\.1:80.*--host"):
        serving._refuse_taken_port("192.0.2.1", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_where_no_one_listens_is_not_refused(host: str) -> None:
    serving._refuse_taken_port(host, free_port())


# What is checked before Ray starts


def check(*applications: dict[str, Any], stop: threading.Event | None = None) -> None:
    whole = [{"import_path": serving.IMPORT_PATH, **application} for application in applications]
    serving._check_models({"applications": whole}, stop or threading.Event())


def test_the_default_config_passes() -> None:
    serving._check_models(read_config(default_config(), host=None, port=None), threading.Event())


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
def test_what_could_not_start_is_refused_with_its_sentence(
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


def test_a_check_that_breaks_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ServingError, match="checking the models ended with 1"):
        check({})


def test_a_stop_ends_the_check_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    check({}, stop=stop)
    assert time.monotonic() - began < 10


# Ray's switches


def test_two_services_share_neither_haproxys_files_nor_its_ports(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = (serve_environment(tmp_path / name) for name in "ab")
    paths = {name for name, value in one.items() if "/" in value}
    assert len(paths) >= 4
    assert all(one[name].startswith(str(tmp_path / "a")) for name in paths)
    assert all(two[name].startswith(str(tmp_path / "b")) for name in paths)
    ports = {name for name in one if name.endswith("_PORT")}
    assert len({env[name] for name in ports for env in (one, two)}) == 2 * len(ports) >= 8


def test_the_switches_are_strings_for_the_environment(tmp_path: Path) -> None:
    switches = serve_environment(tmp_path)
    assert switches["RAY_USAGE_STATS_ENABLED"] == "0"
    assert all(name.startswith("RAY_") for name in switches)
    assert all(isinstance(value, str) for value in switches.values())


def test_what_the_switches_name_is_there(tmp_path: Path) -> None:
    from ray.serve._private.utils import import_attr

    assert callable(
        import_attr(serve_environment(tmp_path)["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"])
    )


@pytest.mark.parametrize(("here", "front"), [(True, "HAProxy"), (False, "Ray Serve's own proxy")])
def test_without_haproxy_serves_own_proxy_runs_and_the_banner_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, front: str
) -> None:
    monkeypatch.setattr(cluster, "has_haproxy", lambda: here)
    switch = serve_environment(tmp_path)["RAY_SERVE_ENABLE_HA_PROXY"]
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", switch)
    assert cluster.http_front().startswith(front)


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200


# Settings on their way to a Ray that already runs


def test_settings_go_with_the_config_and_nothing_else_does() -> None:
    config: dict[str, Any] = {"applications": [{"name": "a"}, {"name": "b"}]}
    environment = {
        "RAYLENS_LIMITS__MAX_ITEMS": "7",
        "RAYLENS_URL": "http://other",
        "RAYLENS_API_KEY": "a secret of the client",
        "HOME": "/root",
        "RAY_ADDRESS": "auto",
    }
    serving._pass_on_settings(config, environment)
    for application in config["applications"]:
        assert application["runtime_env"]["env_vars"] == {"RAYLENS_LIMITS__MAX_ITEMS": "7"}


def test_settings_are_added_to_the_configs_own_variables_and_override_them() -> None:
    own = {"A": "1", "RAYLENS_MODEL__ID": "theirs"}
    runtime_env = {"working_dir": "x", "env_vars": own}
    config = {"applications": [{"runtime_env": runtime_env}]}
    serving._pass_on_settings(config, {"RAYLENS_MODEL__ID": "ours"})
    assert config["applications"][0]["runtime_env"] == {
        "working_dir": "x",
        "env_vars": {"A": "1", "RAYLENS_MODEL__ID": "ours"},
    }


@pytest.mark.parametrize(
    "application", [{"runtime_env": None}, {"runtime_env": {"env_vars": None}}]
)
def test_empty_keys_of_a_config_take_settings_too(application: dict[str, Any]) -> None:
    serving._pass_on_settings({"applications": [application]}, {"RAYLENS_MODEL__ID": "ours"})
    assert application["runtime_env"]["env_vars"] == {"RAYLENS_MODEL__ID": "ours"}


# Waiting, and what went wrong


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
    assert serving._reason(*serving._messages(application)) == reason


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/readyz"
            status = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


RUNNING = {"raylens": {"status": "RUNNING", "message": ""}}
DEPLOYING = {"raylens": {"status": "DEPLOYING", "message": ""}}
NOWHERE = "http://127.0.0.1:9"


def test_waiting_ends_when_serve_runs_all_and_the_service_says_it_is_ready() -> None:
    client = FakeServe({}, DEPLOYING, RUNNING)
    with service(503, 200) as url:
        serving._wait_until_ready(client, url, threading.Event(), 20)
    assert client.answers == [RUNNING]


def test_waiting_ends_with_the_reason_when_the_deployment_fails() -> None:
    client = FakeServe(DEPLOYING, {"raylens": failed(BUILD_FAILED)})
    with pytest.raises(ServingError, match=r"^model\.device: Input"):
        serving._wait_until_ready(client, NOWHERE, threading.Event(), 20)


def test_of_several_applications_the_one_that_failed_is_named() -> None:
    client = FakeServe({**RUNNING, "other": failed(BUILD_FAILED)})
    with pytest.raises(ServingError, match=r"^other: model\.device: Input"):
        serving._wait_until_ready(client, NOWHERE, threading.Event(), 20)


@pytest.mark.parametrize("applications", [DEPLOYING, RUNNING, {}])
def test_waiting_gives_up_after_a_while(applications: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match=r"not ready after 0\.1 s"):
        serving._wait_until_ready(FakeServe(applications), NOWHERE, threading.Event(), 0.1)


def test_waiting_ends_when_told_to_stop() -> None:
    stop = threading.Event()
    stop.set()
    serving._wait_until_ready(FakeServe(DEPLOYING), NOWHERE, stop, 20)


def test_the_way_to_the_service_itself_takes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("NO_PROXY", "")
    with service(200) as url:
        serving._wait_until_ready(FakeServe(RUNNING), url, threading.Event(), 1)


# Logs


class Shown:
    """Collects what a follower shows, and waits for it."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue()

    def __call__(self, line: str) -> None:
        self._lines.put(line)

    def next(self, number: int = 1) -> list[str]:
        return [self._lines.get(timeout=10) for _ in range(number)]

    def rest(self) -> list[str]:
        lines = []
        with suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        return lines


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def follower(tmp_path: Path, shown: Shown) -> Iterator[LogFollower]:
    opened = LogFollower(tmp_path, shown)
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "replica_raylens_Embedder_x.log"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_log_is_shown_line_by_line_as_it_grows(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "one\ntwo\n")
    assert shown.next(2) == ["one", "two"]
    append(log, "three\n")
    assert shown.next() == ["three"]


def test_a_line_is_shown_once_it_is_whole(follower: LogFollower, shown: Shown, log: Path) -> None:
    append(log, "one\nhalf a li")
    assert shown.next() == ["one"]
    append(log, "ne\n")
    assert shown.next() == ["half a line"]


def test_closing_shows_the_rest_at_once(follower: LogFollower, shown: Shown, log: Path) -> None:
    append(log, "one\ntwo\n")
    follower.close()
    assert shown.rest() == ["one", "two"]


def test_closing_shows_a_last_line_that_has_no_end(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "one\nlast wor")
    follower.close()
    assert shown.rest() == ["one", "last wor"]


def test_a_log_that_was_cut_short_is_read_from_its_beginning(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    append(log, "a rather long line\n")
    shown.next()
    log.write_text("short\n")
    assert shown.next() == ["short"]


@pytest.mark.parametrize("new", ["short\n", "a line that is longer than the old one was\n"])
def test_a_rotated_log_is_read_on_in_its_new_file(
    follower: LogFollower, shown: Shown, log: Path, new: str
) -> None:
    append(log, "the old line\n")
    shown.next()
    log.rename(f"{log}.1")
    log.write_text(new)
    assert shown.next() == [new.strip()]


def test_a_log_that_vanishes_does_not_end_the_others(
    follower: LogFollower, shown: Shown, log: Path, tmp_path: Path
) -> None:
    other = tmp_path / "replica_gone.log"
    other.symlink_to(tmp_path / "nothing")  # listed, but gone when it is looked at
    (tmp_path / "replica_folder.log").mkdir()
    append(log, "one\n")
    assert shown.next() == ["one"]
    other.unlink()
    append(log, "two\n")
    assert shown.next() == ["two"]


def test_logs_of_replicas_are_shown_whole_and_only_errors_of_serves_own_parts(
    follower: LogFollower, shown: Shown, log: Path, tmp_path: Path
) -> None:
    append(tmp_path / "controller_1.log", "INFO a\nERROR b\n")
    append(tmp_path / "proxy.txt", "ERROR c\n")
    append(log, "INFO d\n")
    follower.close()
    assert shown.rest() == ["ERROR b", "INFO d"]


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be(
    follower: LogFollower, shown: Shown, log: Path
) -> None:
    log.write_bytes(b"caf\xe9\n")
    follower.close()
    assert shown.rest() == ["caf\ufffd"]


def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path: Path, shown: Shown) -> None:
    folder = tmp_path / "serve"
    opened = LogFollower(folder, shown)
    folder.mkdir()
    append(folder / "replica_x.log", "one\n")
    opened.close()
    assert shown.rest() == ["one"]


def test_sigterm_while_ray_starts_is_a_stop_and_not_an_end() -> None:
    with pytest.raises(cluster.StoppedError), cluster._shielded_start():
        sys.exit(signal.SIGTERM)  # as Ray's own handler does
