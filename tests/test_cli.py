"""The command line as its users meet it: sentences and exit codes."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from raylens.cli import app
from tests.servers import RAYLENS, ROOT

COMMANDS = ("serve", "export", "models", "health", "keys")
MODELS = {
    "object": "list",
    "data": [
        {
            "id": "efficientnet-lite0",
            "dimensions": 1280,
            "image_size": 224,
            "max_text_tokens": None,
            "precision": "float32",
            "precision_reason": "it [has] to be",
            "engine": "openvino",
            "engine_reason": "of [course]",
            "device": "cpu",
            "device_reason": "[model.device] is cpu",
        },
    ],
}
NOT_READY = {"error": {"message": "The model [x] does not answer.", "code": "unavailable"}}
READY = {"status": "ready", "model": "[our]/model"}

# What a user's own shell may say must not steer the tests.
ENV = {"RAYLENS_URL": None, "RAYLENS_API_KEY": None, "RAY_ADDRESS": None, "COLUMNS": "200"}


@contextmanager
def http_server(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A service that answers everything alike; its address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


Serve = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def service() -> Iterator[Serve]:
    """Starts services that answer with a status and JSON, or with bytes as they are."""
    with ExitStack() as stack:

        def start(status: int, body: Any) -> tuple[str, list[str]]:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            return stack.enter_context(http_server(status, data))

        yield start


@pytest.fixture
def closed_url() -> Iterator[str]:
    """An address where no one listens, and no one else can while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def raylens(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, arguments, env={**ENV, **env})


def ended(result: Result) -> int:
    """The exit code, of a command that ended by itself and not with an exception."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code


def sentence(result: Result) -> str:
    """What stands on stderr, without the frame that typer draws around usage errors."""
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", result.stderr).split())


# health and models


def test_health_is_0_when_the_service_is_ready(service: Serve) -> None:
    url, asked = service(200, READY)
    result = raylens("health", "--url", url)
    assert ended(result) == 0
    assert result.stdout == f"ready: [our]/model at {url}\n"
    assert asked == ["/readyz"]


def test_serving_from_a_clients_installation_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "raylens.serving", None)
    monkeypatch.delattr("raylens.serving", raising=False)
    result = raylens("serve")
    assert ended(result) == 1
    assert "pip install 'raylens[server]'" in sentence(result)


def test_who_else_wants_a_key_is_not_taken_for_raylens(service: Serve) -> None:
    url, _ = service(401, b"Unauthorized")
    result = raylens("health", "--url", url)
    assert ended(result) == 1
    assert "RAYLENS_API_KEY" not in sentence(result)


def test_a_companys_proxy_is_not_asked_for_this_machine(service: Serve) -> None:
    url, _ = service(200, READY)
    assert ended(raylens("health", "--url", url, HTTP_PROXY="http://127.0.0.1:9")) == 0


def test_health_is_1_with_the_services_own_reason_when_it_is_not_ready(service: Serve) -> None:
    url, _ = service(503, NOT_READY)
    result = raylens("health", "--url", url)
    assert ended(result) == 1
    assert result.stderr == "raylens: The model [x] does not answer.\n"
    assert result.stdout == ""


def test_models_shows_what_the_service_has(service: Serve) -> None:
    url, asked = service(200, MODELS)
    result = raylens("models", "--url", url)
    assert ended(result) == 0
    shown = ("efficientnet-lite0", "1280", "224", "float32", "cpu", "[model.device]", "[has]")
    for word in shown:
        assert word in result.stdout.split()
    assert asked == ["/v1/models"]


def test_models_shows_the_whole_of_a_long_name(service: Serve) -> None:
    name = "an-organisation-of-some-length/a-checkpoint-whose-name-does-not-fit-into-a-table"
    url, _ = service(200, {"data": [{**MODELS["data"][0], "id": name}]})
    table = raylens("models", "--url", url).stdout.partition("device:")[0]
    assert name in "".join(re.findall(r"^│ (\S+)", table, re.MULTILINE))


@pytest.mark.parametrize("command", ["health", "models"])
def test_the_address_comes_from_the_environment_too(service: Serve, command: str) -> None:
    url, asked = service(503, NOT_READY)
    assert ended(raylens(command, RAYLENS_URL=f"{url}/")) == 1
    assert asked in (["/readyz"], ["/v1/models"])


@pytest.mark.parametrize("command", ["health", "models"])
def test_an_address_where_no_one_answers_is_3(command: str, closed_url: str) -> None:
    result = raylens(command, "--url", closed_url)
    assert ended(result) == 3
    assert result.stderr.startswith(f"raylens: nobody answers at {closed_url} (")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["localhost:8000", "nowhere", "http://", "http://[::1", "ftp://x"])
@pytest.mark.parametrize("command", ["health", "models"])
def test_what_is_no_address_is_3(command: str, url: str) -> None:
    result = raylens(command, "--url", url)
    assert ended(result) == 3
    assert result.stderr.startswith(f"raylens: nobody answers at {url} (")


@pytest.mark.parametrize(
    "body", [b"<html>Hello</html>", b"\xff\xfe", b"[]", b"{}", b"null", b'{"data": [7]}'], ids=repr
)
@pytest.mark.parametrize("command", ["health", "models"])
def test_an_answer_that_is_not_raylenss_is_1(service: Serve, command: str, body: bytes) -> None:
    url, _ = service(200, body)
    result = raylens(command, "--url", url)
    assert ended(result) == 1
    assert url in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b'{"error": "x"}', b""], ids=repr)
def test_an_error_that_is_not_raylenss_is_told_by_its_status(service: Serve, body: bytes) -> None:
    url, _ = service(502, body)
    result = raylens("health", "--url", url)
    assert ended(result) == 1
    assert result.stderr == f"raylens: {url}/readyz answered with status 502\n"


# Usage


def test_help_lists_the_commands() -> None:
    result = raylens("--help")
    assert ended(result) == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = raylens(command, "--help")
    assert ended(result) == 0
    assert f"{command} [OPTIONS]" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["health", "--colour"],
        ["models", "extra"],
        ["serve", "--port", "http"],
        ["serve", "--wait", "long"],
        [],
    ],
)
def test_a_usage_error_is_2(arguments: list[str]) -> None:
    assert ended(raylens(*arguments)) == 2


# serve, as far as it gets without Ray


def test_a_config_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    result = raylens("serve", str(missing))
    assert ended(result) == 2
    assert f"cannot read {missing}: No such file or directory" in sentence(result)


@pytest.mark.parametrize(
    ("text", "reason"), [("a: [", "is not valid YAML"), ("a: 1", "has no applications")]
)
def test_a_config_that_is_none_is_a_usage_error(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    result = raylens("serve", str(path))
    assert ended(result) == 2
    assert reason in sentence(result)


@pytest.mark.parametrize("port", ["0", "-1", "70000"])
def test_a_port_that_cannot_be_one_is_a_usage_error(port: str, tmp_path: Path) -> None:
    # The config is missing as well, so that no mistake here can start a service.
    result = raylens("serve", str(tmp_path / "missing.yaml"), "--port", port)
    assert ended(result) == 2
    assert "--port" in sentence(result)


@pytest.mark.timeout(60)
def test_a_taken_port_is_told_before_anything_starts() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ENV}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = subprocess.run(
            [str(RAYLENS), "serve", "--port", port],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert process.returncode == 1
    assert process.stderr.startswith(f"raylens: cannot listen on 127.0.0.1:{port} (")
    assert process.stderr.endswith("choose another with --port\n")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""


def test_the_key_comes_from_the_environment() -> None:
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(READY).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert ended(raylens("health", "--url", url, RAYLENS_API_KEY="rl_x\n")) == 0
        assert ended(raylens("health", "--url", url)) == 0
        server.shutdown()
    assert seen == ["Bearer rl_x", None]


def test_a_key_that_is_none_is_not_shown(closed_url: str) -> None:
    result = raylens("health", "--url", closed_url, RAYLENS_API_KEY="rl_a\nb")
    assert ended(result) in (1, 3)
    assert "rl_a" not in result.stderr


def test_export_says_where_the_model_is_and_what_it_runs_in(tmp_path: Path) -> None:
    store = tmp_path / "exports"
    process = subprocess.run(
        [RAYLENS, "export", "efficientnet-lite0", "--to", store, "--precision", "float32"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert process.returncode == 0, process.stderr
    (folder,) = store.iterdir()
    assert process.stdout == (
        f"Exported efficientnet-lite0 to {folder}; on this processor it runs in float32, because "
        "model.precision says so.\n"
    )
    assert "Exporting model efficientnet-lite0 to OpenVINO, once." in process.stderr


def test_export_tells_what_is_wrong_with_a_model(tmp_path: Path) -> None:
    result = raylens("export", str(tmp_path / "none"))
    assert ended(result) == 1
    assert "there is no such folder on this machine" in sentence(result)


@pytest.mark.parametrize("option", [("--precision", "fp16"), ("--pooling", "average")])
def test_an_export_option_that_is_none_is_a_usage_error(option: tuple[str, str]) -> None:
    assert ended(raylens("export", "a/b", *option)) == 2
