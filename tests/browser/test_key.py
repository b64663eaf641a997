"""The page of a service that wants a key: it asks, and keeps it in the tab alone."""

import hashlib

import pytest

from tests.browser.conftest import PHOTOS, Open, Serve, choose, until_status

AUTH = {"keys": [{"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest()}]}


def test_the_page_asks_for_the_key_and_says_if_it_is_wrong(serve: Serve, visit: Open) -> None:
    page = visit(serve(auth=AUTH))
    page.wait_for_selector("#key-dialog[open]")
    assert page.evaluate("document.activeElement.id") == "key-input"
    page.fill("#key-input", "wrong")
    page.press("#key-input", "Enter")
    page.wait_for_function(
        "() => document.getElementById('key-error').textContent.includes('does not accept')"
    )
    page.fill("#key-input", "secret")
    page.click("#key-dialog .primary")
    page.wait_for_selector("#facts dt")
    choose(page, PHOTOS[:2])
    until_status(page, "2 images embedded.")
    assert '-H "Authorization: Bearer $RAYLENS_API_KEY"' in page.inner_text("#snippet")
    assert "secret" not in page.content()


def test_the_key_outlives_a_reload_but_not_the_tab(serve: Serve, visit: Open) -> None:
    url = serve(auth=AUTH)
    page = visit(url)
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    page.wait_for_selector("#facts dt")
    page.reload()
    page.wait_for_selector("#facts dt")
    assert not page.is_visible("#key-dialog")
    stored = page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]")
    assert stored == [0, "", 1]
    other = page.context.new_page()
    other.goto(url)
    other.wait_for_selector("#key-dialog[open]")


@pytest.mark.parametrize("key", ["", "two words", "ключ"])
def test_what_cannot_be_a_key_is_not_sent(serve: Serve, visit: Open, key: str) -> None:
    page = visit(serve(auth=AUTH))
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key-input", key)
    page.press("#key-input", "Enter")
    assert "in one piece" in page.inner_text("#key-error")


def test_the_dialog_can_be_left_and_opened_again_and_the_key_forgotten(
    serve: Serve, visit: Open
) -> None:
    page = visit(serve(auth=AUTH))
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    assert "valid key" in page.inner_text("#serving")
    page.click("#key")
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    page.wait_for_selector("#facts dt")
    page.click("#key")
    page.click("#key-forget")
    page.wait_for_function("sessionStorage.length === 0")


def test_a_key_that_is_revoked_meanwhile_is_asked_for_again(serve: Serve, visit: Open) -> None:
    page = visit(serve(auth=AUTH))
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    page.wait_for_selector("#facts dt")
    page.evaluate("sessionStorage.setItem('raylens-key', 'revoked')")
    choose(page, PHOTOS[:2])
    page.wait_for_selector("#key-dialog[open]")
    assert "does not accept" in page.inner_text("#key-error")
    page.fill("#key-input", "secret")
    page.press("#key-input", "Enter")
    until_status(page, "2 images embedded.")
