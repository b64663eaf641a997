"""The page of a real `raylens serve`, behind HAProxy, and the pictures of it in the docs."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.browser.conftest import PHONE, PHOTOS, WIDE, Open, Page, choose, until_status
from tests.servers import ROOT, Server, serve

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: object) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server"), ROOT / "serve_config.yaml") as server:
        yield server


def picture(page: Page, name: str, *, full: bool = False) -> None:
    """Writes docs/images/NAME.jpg, as it is seen."""
    page.mouse.move(1, 1)
    page.wait_for_timeout(300)
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    image = Image.open(io.BytesIO(page.screenshot(full_page=full)))
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.jpg"
    image.convert("RGB").save(path, quality=72, optimize=True, progressive=True)
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_files_pass_through_haproxy_with_their_headers(server: Server, method: str) -> None:
    response = httpx.request(method, f"{server.url}/")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert int(response.headers["content-length"]) > 1000
    assert len(response.headers.get_list("x-request-id")) == 1
    known = {"if-none-match": response.headers["etag"]}
    assert httpx.request(method, f"{server.url}/", headers=known).status_code == 304


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("page", WIDE, "light"), ("page-dark", WIDE, "dark"), ("page-phone", PHONE, "light")],
)
def test_real_photos_are_embedded_and_compared(
    server: Server, visit: Open, name: str, size: tuple[int, int], scheme: str
) -> None:
    page = visit(server.url, size, scheme)
    page.wait_for_selector("#facts dt")
    assert "efficientnet-lite0 on cpu" in page.inner_text("#serving")
    if name == "page":
        picture(page, "page-start")
    page.click("#samples")
    until_status(page, "8 images embedded.")
    assert page.inner_text("#item-1 .nearest .name").split()[-1] == "hopper.jpg"
    assert {"In the service", "Network and browser"} <= set(
        page.locator("#bars dt").all_inner_texts()
    )
    picture(page, name, full=True)


def test_what_was_wrong_with_a_file_is_told(server: Server, visit: Open, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTOS[0].read_bytes()[:3000])
    page = visit(server.url)
    choose(page, [PHOTOS[0], broken])
    until_status(page, "1 image embedded, 1 failed.")
    assert "cut short" in page.inner_text(".card .wrong")


def test_the_explorer_sends_requests(server: Server, visit: Open) -> None:
    page = visit(f"{server.url}/docs#post_v1_embeddings")
    page.click("#post_v1_embeddings form .primary")
    page.wait_for_selector("#post_v1_embeddings .result pre")
    assert "… 1280 numbers]" in page.inner_text("#post_v1_embeddings .result")
    picture(page, "explorer")
