"""What HAProxy answers itself has the shape that each dialect's clients read."""

import re
import socket
import threading

import pytest

from deployments.api.dialects import DIALECTS
from deployments.api.endpoint import Dialect, Endpoint
from deployments.api.endpoints import NATIVE
from deployments.errors import Overloaded
from raylens.cluster import free_port
from tests.haproxies import App, Front, app, front

__all__ = ["app", "front"]  # fixtures

ENDPOINTS = [(d, e) for d in (NATIVE, *DIALECTS) for e in d.endpoints]


def url(front: Front, endpoint: Endpoint) -> str:
    path = re.sub(r"{[^}]*}", "openai/clip", endpoint.path)
    return f"http://127.0.0.1:{front.port}{path}"


def has_plain_errors(dialect: Dialect) -> bool:
    return isinstance(dialect.error(Overloaded("Full."), "id").get("error"), str)


def test_where_no_server_is_reached_each_dialect_gets_its_error(front: Front) -> None:
    front.server_port = free_port()
    front.start()
    for dialect, endpoint in ENDPOINTS:
        response = front.client.request(endpoint.method, url(front, endpoint))
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        content = response.json()
        assert isinstance(content["error"], str) == has_plain_errors(dialect), endpoint.path
        for name in ("detail", "message"):
            assert content[name] == "The service is not reachable at the moment; retry."


def test_whatever_takes_items_is_refused_in_front_in_the_words_of_its_dialect(
    front: Front, app: type[App]
) -> None:
    front.start()
    for dialect, endpoint in ENDPOINTS:
        if endpoint.method == "POST":
            app.answers[:] = [(429, {"X-Raylens-Admit": "0", "Retry-After": "7"})]
            front.post()  # so that HAProxy refuses for a second from now, if it did not already
            response = front.client.post(url(front, endpoint))
            assert (response.status_code, response.headers["retry-after"]) == (429, "7")
            content = response.json()
            assert isinstance(content["error"], str) == has_plain_errors(dialect), endpoint.path
            assert "7 s" in content["detail"] == content["message"]


def test_a_path_written_in_escapes_is_the_same_path(front: Front, app: type[App]) -> None:
    front.start()
    app.answers[:] = [(429, {"X-Raylens-Admit": "0", "Retry-After": "7"})]
    front.post()
    response = front.client.post(f"http://127.0.0.1:{front.port}/%65mbed")
    assert response.status_code == 429
    assert "7 s" in response.json()["error"]


def test_a_server_that_does_not_speak_http_is_not_reached_either(front: Front) -> None:
    def babble() -> None:
        for _ in range(9):
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"nonsense\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=babble, daemon=True).start()
        front.server_port = server.getsockname()[1]
        front.start()
        assert front.post().status_code == 503


@pytest.mark.parametrize("status", [502, 504])
def test_the_services_own_bad_gateways_stay_what_they_are(
    front: Front, app: type[App], status: int
) -> None:
    front.start()
    app.answers.append((status, {}))
    response = front.post()
    assert (response.status_code, response.text) == (status, "ok")
