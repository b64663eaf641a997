"""The code that the page shows does what the page has done: it is run here."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PHOTOS, Open, Page, Serve, choose, until_status
from tests.fakes import TEXT, FakeModel

AUTH = {"keys": [{"name": "ci", "sha256": hashlib.sha256(b"secret").hexdigest()}]}
NAMES = ["plain.jpg", 'it\'s "odd"; 1,2 $HOME\\.jpg', "ünï `code` #1.jpg", "-x @y.jpg"]
WORDS = 'it\'s a "cat" \\ $HOME\u2028'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, photo in zip(NAMES, PHOTOS, strict=False):
        (tmp_path / name).write_bytes(photo.read_bytes())
    return tmp_path


def snippet(page: Page, name: str) -> str:
    page.click(f"#tab-{name}")
    return str(page.locator("#snippet").text_content())


def output(command: list[str], folder: Path) -> Any:
    env = {**os.environ, "RAYLENS_API_KEY": "secret", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("auth", [{}, AUTH], ids=["open", "key"])
def test_each_snippet_embeds_what_the_page_has(
    serve: Serve, visit: Open, folder: Path, auth: dict[str, Any]
) -> None:
    page = visit(serve(FakeModel(text=TEXT), auth=auth))
    if auth:
        page.fill("#key-input", "secret")
        page.press("#key-input", "Enter")
    page.wait_for_selector("#facts dt")
    choose(page, [folder / name for name in NAMES])
    page.fill("#line", WORDS)
    page.press("#line", "Enter")
    until_status(page, "5 items embedded.")

    if shutil.which("curl"):
        files, texts = snippet(page, "curl").split("\n\n")
        script = f"set -e; {files}\n"
        rows = output(["bash", "-c", script], folder)["data"]
        assert [len(row["embedding"]) for row in rows] == [12] * 4
        assert len(output(["bash", "-c", texts], folder)["data"]) == 1
    for name in ("raylens", "openai"):
        code = snippet(page, name) + "print([len(vector) for vector in vectors])"
        assert output([sys.executable, "-c", code], folder) == [12] * 5


def test_the_copy_button_copies_and_says_so(serve: Serve, visit: Open) -> None:
    page = visit(serve(), permissions=["clipboard-read", "clipboard-write"])
    choose(page, PHOTOS[:1])
    until_status(page, "1 image embedded.")
    page.click("#tab-raylens")
    page.click("#copy")
    page.wait_for_function("() => document.getElementById('copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == snippet(page, "raylens")


def test_without_a_clipboard_the_code_is_selected(serve: Serve, visit: Open) -> None:
    page = visit(serve())
    choose(page, PHOTOS[:1])
    until_status(page, "1 image embedded.")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    page.click("#copy")
    page.wait_for_function("() => getSelection().toString().startsWith('curl')")
