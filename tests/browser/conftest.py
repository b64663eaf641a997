"""Chromium in front of the whole HTTP layer, with fake models behind it.

Whatever a test does, the page must ask its own origin alone, and no script may fail or be blocked.
"""

import base64
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployments.api.fence import Fence
from deployments.api.routes import Api
from deployments.settings import Settings
from deployments.sources.fetch import Fetcher
from tests.client.conftest import running
from tests.fakes import FakeModel, service

Page = Any  # playwright's, which is not installed where only the other tests run
Serve = Callable[..., str]
Open = Callable[..., Page]

PHOTOS = sorted((Path(__file__).parents[2] / "deployments/models/photos").glob("*.jpg"))
WIDE, PHONE = (1280, 860), (360, 740)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; `make e2e-page` does that"
    )
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium in the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a service and returns its address."""
    with ExitStack() as stack:

        def start(
            model: FakeModel | None = None, *more: FakeModel, prefix: str = "", **sections: Any
        ) -> str:
            settings = Settings(**sections)
            fetcher = Fetcher(settings.fetch, max_bytes=settings.limits.max_image_bytes)

            @asynccontextmanager
            async def lifespan(app: Any) -> AsyncIterator[None]:
                await fetcher.start()
                yield
                await fetcher.close()

            api = Api(service(model, *more, fetcher=fetcher, **sections)).app(lifespan=lifespan)
            return stack.enter_context(running(below(prefix, Fence(api)), lifespan="on")) + prefix

        yield start


def below(prefix: str, app: Any) -> Any:
    """The application as Serve calls it below a route prefix."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": prefix}, receive, send)

    return call if prefix else app


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens an address in a tab; afterwards, nothing must have gone wrong in it."""
    asked: list[str] = []
    wrong: list[str] = []
    origins: set[str] = set()
    with ExitStack() as stack:

        def open_page(
            url: str, size: tuple[int, int] = WIDE, scheme: str = "light", **options: Any
        ) -> Page:
            origins.add(urlsplit(url).netloc)
            context = chromium.new_context(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **options
            )
            context.set_default_timeout(10_000)
            stack.callback(context.close)
            context.on("request", lambda request: asked.append(request.url))
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
            page.goto(url)
            return page

        yield open_page
    # Chromium itself writes a line for each answer that is an error.
    assert not [line for line in wrong if "Failed to load resource" not in line]
    assert asked
    for url in asked:
        if not url.startswith(("blob:", "data:", "file:")):
            assert urlsplit(url).netloc in origins, url


def transfer(page: Page, files: Sequence[Path] = (), links: str = "") -> Any:
    """What a browser hands over for a drop or a paste of these files and links."""
    contents = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
    return page.evaluate_handle(
        """([files, links]) => {
          const made = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            made.items.add(new File([bytes], name, { type: "image/jpeg" }));
          }
          if (links) made.setData("text/uri-list", links);
          return made;
        }""",
        [contents, links],
    )


def choose(page: Page, files: Sequence[Path]) -> None:
    page.set_input_files("#files", [str(file) for file in files])


def status(page: Page) -> str:
    return str(page.inner_text("#status"))


def until_status(page: Page, text: str) -> None:
    page.wait_for_function(
        "text => document.getElementById('status').textContent.includes(text)", arg=text
    )


def names(page: Page) -> list[str]:
    return [str(name) for name in page.locator(".card > .name").all_inner_texts()]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    """The sample photos on a server of their own."""
    handler = partial(_Quiet, directory=str(PHOTOS[0].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
