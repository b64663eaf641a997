"""Serves the page at `/`, the explorer of the API at `/docs`, and the files that both load.

The files stand in `web/`, and what they do in a browser is theirs alone. Paths in them are
relative, so that they work below any route prefix.
"""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

PACKAGE = Path(__file__).parents[1]
PAGES = {"/": "index.html", "/docs": "docs.html"}
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
# Only what comes from here is run, shown or requested, and no text can become markup.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Cache-Control": "no-cache",  # stored, but revalidated: an update shows at once
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class StaticFile:
    """A file's bytes, with the headers of its answer."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'
        self._headers = {
            **HEADERS,
            "Content-Type": MEDIA_TYPES[path.suffix],
            "ETag": self._etag,
        }

    async def answer(self, request: Request) -> Response:
        """200 with the file, or 304 if the browser has it already."""
        known = request.headers.get("if-none-match", "").split(",")
        if self._etag in {tag.strip().removeprefix("W/") for tag in known}:
            return Response(status_code=304, headers=self._headers)
        if request.method == "HEAD":
            length = {"Content-Length": str(len(self._content))}
            return Response(headers={**self._headers, **length})
        return Response(self._content, headers=self._headers)


class PrefixAlone(BaseRoute):
    """The route prefix without a slash behind it, from where relative paths would lead astray."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_alone = scope["type"] == "http" and scope["path"] == scope.get("root_path")
        return (Match.FULL if is_alone else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Relative, because whoever is in front may know this service by another prefix.
        last = scope["path"].rpartition("/")[2]
        await RedirectResponse(f"{last}/", headers=HEADERS)(scope, receive, send)


@functools.cache
def static_files() -> Mapping[str, StaticFile]:
    """Each file by its path below the route prefix, read once."""
    files = {path: PACKAGE / "web" / name for path, name in PAGES.items()}
    for path in (PACKAGE / "web").iterdir():
        if path.suffix in (".js", ".css", ".svg"):
            files[f"/web/{path.name}"] = path
    for path in (PACKAGE / "models" / "photos").glob("*.jpg"):
        files[f"/web/samples/{path.name}"] = path
    return {path: StaticFile(file) for path, file in files.items()}


def page_routes() -> list[BaseRoute]:
    """A route for each of the files."""
    return [
        *(Route(path, file.answer) for path, file in static_files().items()),
        PrefixAlone(),
    ]


def page_paths() -> frozenset[str]:
    """All of them, and the empty path, which leads to `/`. None is a secret."""
    return frozenset({*static_files(), ""})
