"""The HAProxy that raylens runs refuses for the service."""

import time
from concurrent.futures import ThreadPoolExecutor

from raylens.cluster import free_port
from raylens.refusals import WINDOW_MS
from tests.haproxies import App, Front, app, front

__all__ = ["app", "front"]  # fixtures

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
    assert second.json()["detail"] == second.json()["message"] == error["message"]
    assert (error["code"], error["type"]) == ("overloaded", "overloaded_error")
    assert "7 s" in error["message"]
    assert (second.headers["retry-after"], second.headers["x-request-id"]) == ("7", "mine")
    assert error["request_id"] == "mine"
    assert front.post().json()["error"]["request_id"] not in ("", "mine")
    time.sleep(WINDOW_MS / 1e3)
    with ThreadPoolExecutor(4) as pool:  # side by side, to be within one window
        statuses = [answer.status_code for answer in pool.map(lambda _: front.post(), range(4))]
    assert sorted(statuses) == [200, 200, 429, 429]
    told = [seen["x-raylens-refused"] for seen in app.seen]
    assert (told[:2], "2" in told[2:]) == (["0", "0"], True)  # the last two came side by side


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
    content = response.json()
    assert content["error"]["code"] == "unavailable"
    assert content["error"]["message"] == content["detail"] == content["message"]


def test_before_it_knows_of_any_application_it_does_not_say_404(front: Front) -> None:
    front.start(routes=False)
    assert front.post().status_code == 503
