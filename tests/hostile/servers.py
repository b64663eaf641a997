"""What the attacked service must not reach, and the host that sends it there."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# All on loopback. The settings allow the service to fetch from the last one alone.
SECRET_HOSTS = ("127.0.0.1", "127.0.0.2", "127.1.2.3", "::1")
OPEN_HOST = "127.0.0.9"


class Secret:
    """Listens on one port of several addresses, counts who connects and hands out an image."""

    def __init__(self, image: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(image) + image
        self.accepted = 0
        self._sockets: list[socket.socket] = []
        self.port = 0
        for host in SECRET_HOSTS:
            kind = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.socket(kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, self.port))
            listener.listen()
            self.port = listener.getsockname()[1]
            self._sockets.append(listener)
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            with connection:
                connection.settimeout(1)
                try:
                    connection.recv(4096)
                    connection.sendall(self._answer)
                except OSError:
                    pass

    def close(self) -> None:
        for listener in self._sockets:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@contextmanager
def redirecting(targets: Sequence[str]) -> Iterator[str]:
    """A host that may be fetched from; /N redirects to the Nth target."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = self.path.removeprefix("/")
            if not number.isdigit():  # a target that is relative to this host
                self.send_error(404)
                return
            target = targets[int(number)]
            location = target.encode("utf-8", "replace")  # `send_header` would refuse some
            head = b"HTTP/1.0 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
            self.wfile.write(head % location)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer((OPEN_HOST, 0), Handler))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        yield f"http://{OPEN_HOST}:{server.server_port}"
