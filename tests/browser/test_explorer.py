"""The explorer of the API: every operation of /openapi.json, and requests that can be sent."""

import hashlib
import json

import httpx
import pytest

from tests.browser.conftest import PHONE, Open, Serve

AUTH = {"keys": [{"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest()}]}


def test_every_operation_is_shown_with_its_fields_answers_and_errors(
    serve: Serve, visit: Open
) -> None:
    url = serve()
    document = httpx.get(f"{url}/openapi.json").json()
    page = visit(f"{url}/docs")
    page.wait_for_selector(".operation")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            shown = page.locator(f"#{operation['operationId']}")
            shown.locator("summary").first.click()
            shown.get_by_text("Answers", exact=True).wait_for()  # it is made when it is opened
            text = shown.inner_text()
            assert path in text
            assert operation["summary"] in text
            for status, answer in operation["responses"].items():
                assert status in text
                if status != "200":
                    assert answer["description"] in text
    body = document["components"]["schemas"]["EmbeddingsBody"]["properties"]
    fields = page.locator("#post_v1_embeddings table").first.inner_text()
    for name, field in body.items():
        assert name in fields
        assert field.get("description", "") in fields
    assert '{"path": string}' in page.locator("#post_v1_embeddings details >> nth=0").text_content()


def test_a_request_can_be_sent_as_it_stands(serve: Serve, visit: Open) -> None:
    page = visit(f"{serve()}/docs#post_v1_embeddings")
    page.wait_for_selector("#post_v1_embeddings[open] form")
    page.click("#post_v1_embeddings form .primary")
    page.wait_for_selector("#post_v1_embeddings .result pre")
    text = page.inner_text("#post_v1_embeddings .result")
    assert "HTTP 200" in text
    assert "x-request-id" in text
    assert "… 12 numbers]" in text


def test_errors_are_shown_as_the_service_tells_them(serve: Serve, visit: Open) -> None:
    page = visit(f"{serve()}/docs#post_v1_rank")
    page.wait_for_selector("#post_v1_rank[open] form")
    page.fill("#post_v1_rank textarea", '{"query": ')
    page.click("#post_v1_rank form .primary")
    page.wait_for_selector("#post_v1_rank .result .wrong")
    assert "HTTP 400" in page.inner_text("#post_v1_rank .result")
    assert "bad_request" in page.inner_text("#post_v1_rank .result pre")


def test_a_part_of_the_path_is_filled_in(serve: Serve, visit: Open) -> None:
    page = visit(f"{serve()}/docs#get_v1_models_model")
    page.fill("#get_v1_models_model input", "fake")
    assert page.inner_text("#get_v1_models_model form pre >> nth=0").endswith("/v1/models/fake'")
    page.press("#get_v1_models_model input", "Enter")
    page.wait_for_selector("#get_v1_models_model .result pre")
    assert json.loads(page.inner_text("#get_v1_models_model .result pre"))["dimensions"] == 12


def test_it_asks_for_the_key(serve: Serve, visit: Open) -> None:
    page = visit(f"{serve(auth=AUTH)}/docs")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    page.click("#get_v1_models > summary")
    page.click("#get_v1_models form .primary")
    page.wait_for_selector("#get_v1_models .result pre")
    assert "HTTP 200" in page.inner_text("#get_v1_models .result")
    assert "$RAYLENS_API_KEY" in page.inner_text("#get_v1_models form pre >> nth=0")


@pytest.mark.parametrize("path", ["", "/", "/docs"])
def test_both_pages_work_below_a_route_prefix(serve: Serve, visit: Open, path: str) -> None:
    page = visit(serve(prefix="/a/b") + path)
    if path == "/docs":
        page.click("#get_v1_models > summary")
        page.click("#get_v1_models form .primary")
        page.wait_for_selector("#get_v1_models .result pre")
        assert "HTTP 200" in page.inner_text("#get_v1_models .result")
        page.click(".brand")
    page.click("#samples")
    page.wait_for_selector("#matrix td")
    assert "/a/b/v1/embeddings" in page.inner_text("#snippet")


def test_nothing_is_wider_than_a_phone(serve: Serve, visit: Open) -> None:
    page = visit(f"{serve()}/docs", PHONE)
    page.wait_for_selector(".operation")
    for operation in page.locator(".operation > summary").all():
        operation.click()
    page.click("#post_v1_embeddings form .primary")
    page.wait_for_selector("#post_v1_embeddings .result pre")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
