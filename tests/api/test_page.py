"""The page's files as they are served; `tests/browser` tests what they do."""

import re
from pathlib import Path

import httpx
import pytest

from deployments.api.fence import Fence
from deployments.api.page import MEDIA_TYPES, PACKAGE, page_paths
from deployments.api.routes import Api
from tests.api.conftest import Connect
from tests.fakes import service

WEB = PACKAGE / "web"
KEYS = {"keys": [{"name": "ci", "sha256": "0" * 64}]}
FILES = sorted(page_paths() - {""})


@pytest.mark.parametrize("path", FILES)
async def test_every_file_comes_without_a_key_and_with_strict_headers(
    connect: Connect, path: str
) -> None:
    async with connect(auth=KEYS) as client:
        response = await client.get(path)
    assert response.status_code == 200
    assert response.content
    policy = response.headers["content-security-policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", "script-src 'self'"]
    assert not [part for part in policy if "unsafe" in part or "http" in part or "*" in part]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    suffix = Path(path).suffix or ".html"
    assert response.headers["content-type"] == MEDIA_TYPES[suffix]


@pytest.mark.parametrize(
    "path",
    [
        *("/web", "/web/", "/web/index.html", "/web/__init__.py", "/web/samples/README.md"),
        *("/web/../api/auth.py", "/web/%2e%2e/api/auth.py", "/index.html", "/docs/"),
    ],
)
async def test_nothing_else_is_served(connect: Connect, path: str) -> None:
    async with connect() as client:
        response = await client.get(path)
    assert response.status_code == 404


async def test_head_has_the_length_and_no_body(connect: Connect) -> None:
    async with connect() as client:
        got = await client.get("/")
        head = await client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] != "0"
    assert head.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"other", {}'])
async def test_a_file_that_the_browser_has_is_not_sent_again(connect: Connect, shape: str) -> None:
    async with connect() as client:
        etag = (await client.get("/web/app.js")).headers["etag"]
        again = await client.get("/web/app.js", headers={"if-none-match": shape.format(etag)})
        other = await client.get("/", headers={"if-none-match": shape.format(etag)})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-security-policy" in again.headers
    assert other.status_code == 200


async def test_other_methods_are_refused(connect: Connect) -> None:
    async with connect() as client:
        assert (await client.post("/docs")).status_code == 405


async def test_the_page_can_be_switched_off(connect: Connect) -> None:
    # Without dialects, because clients of TEI post to `/`.
    async with connect(api={"page": False, "dialects": ()}) as client:
        for path in page_paths() - {""}:
            response = await client.get(path)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "not_found"
        assert (await client.get("/v1/models")).status_code == 200
    async with connect(api={"page": False}, auth=KEYS) as client:
        assert (await client.get("/docs")).status_code == 401


async def test_below_a_route_prefix_all_that_a_page_names_is_found() -> None:
    transport = httpx.ASGITransport(app=Fence(Api(service(auth=KEYS)).app()), root_path="/a/b")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/a/b")
        assert response.status_code == 307
        assert response.headers["location"] == "b/"
        for page in (httpx.URL("http://test/a/b/"), httpx.URL("http://test/a/b/docs")):
            html = (await client.get(page)).text
            named = set(re.findall(r'(?:href|src)="([^"#]+)"', html)) - {"openapi.json"}
            assert len(named) > 3
            for name in named:
                assert (await client.get(page.join(name))).status_code == 200


def test_every_file_of_the_folder_is_served_and_fits_on_a_few_screens() -> None:
    files = [path for path in WEB.iterdir() if path.suffix in MEDIA_TYPES]
    assert len(files) == len([path for path in FILES if "samples" not in path])
    assert not [path.name for path in files if path.read_text().count("\n") > 300]


def test_the_samples_are_those_that_the_page_asks_for() -> None:
    names = re.search(r"SAMPLES = \[([^]]+)\]", (WEB / "app.js").read_text())
    assert names is not None
    asked = {f"/web/samples/{name}.jpg" for name in re.findall(r'"(\w+)"', names[1])}
    assert asked == {path for path in FILES if "samples" in path}
