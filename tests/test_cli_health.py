"""`raylens health` and `raylens models`, against services good and bad and none at all."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.answering import answering
from tests.commands import ended, raylens, sentence

MODELS: dict[str, Any] = {
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


@contextmanager
def http_server(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A service with one answer to everything; its address, and the paths it was asked for."""
    asked: list[str] = []

    def answer(path: str) -> tuple[int, bytes]:
        asked.append(path)
        return status, body

    with answering(answer) as url:
        yield url, asked


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


def test_health_exits_with_0_when_the_service_is_ready(service: Serve) -> None:
    url, asked = service(200, READY)
    result = raylens("health", "--url", url)
    assert ended(result) == 0
    assert result.stdout == f"ready: [our]/model at {url}\n"
    assert asked == ["/readyz"]


def test_another_service_that_wants_a_key_is_not_taken_for_raylens(service: Serve) -> None:
    url, _ = service(401, b"Unauthorized")
    result = raylens("health", "--url", url)
    assert ended(result) == 1
    assert "RAYLENS_API_KEY" not in sentence(result)


def test_a_companys_proxy_is_not_used_for_this_machine(service: Serve) -> None:
    url, _ = service(200, READY)
    assert ended(raylens("health", "--url", url, HTTP_PROXY="http://127.0.0.1:9")) == 0


def test_health_exits_with_1_and_the_services_own_reason_when_it_is_not_ready(
    service: Serve,
) -> None:
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
def test_an_address_where_no_one_answers_exits_with_3(command: str, closed_url: str) -> None:
    result = raylens(command, "--url", closed_url)
    assert ended(result) == 3
    assert result.stderr.startswith(f"raylens: nothing answers at {closed_url} (")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["localhost:8000", "nowhere", "http://", "http://[::1", "ftp://x"])
@pytest.mark.parametrize("command", ["health", "models"])
def test_an_impossible_address_exits_with_3(command: str, url: str) -> None:
    result = raylens(command, "--url", url)
    assert ended(result) == 3
    assert result.stderr.startswith(f"raylens: nothing answers at {url} (")


@pytest.mark.parametrize(
    "body", [b"<html>Hello</html>", b"\xff\xfe", b"[]", b"{}", b"null", b'{"data": [7]}'], ids=repr
)
@pytest.mark.parametrize("command", ["health", "models"])
def test_an_answer_of_another_service_exits_with_1(
    service: Serve, command: str, body: bytes
) -> None:
    url, _ = service(200, body)
    result = raylens(command, "--url", url)
    assert ended(result) == 1
    assert url in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b'{"error": "x"}', b""], ids=repr)
def test_an_error_of_another_service_is_reported_by_its_status(service: Serve, body: bytes) -> None:
    url, _ = service(502, body)
    result = raylens("health", "--url", url)
    assert ended(result) == 1
    assert result.stderr == f"raylens: {url}/readyz answered with status 502\n"


# Keys


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


def test_an_impossible_key_is_not_shown(closed_url: str) -> None:
    result = raylens("health", "--url", closed_url, RAYLENS_API_KEY="rl_a\nb")
    assert ended(result) in (1, 3)
    assert "rl_a" not in result.stderr
