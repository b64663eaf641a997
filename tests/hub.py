"""A small Hugging Face hub on loopback: repositories in memory, and failures on demand."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CONVERTER = "SFconvertbot"


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each commit."""
    references: dict[str, list[str]] = field(default_factory=dict)
    """Branches, tags and `refs/pr/N`, each with its commits, the newest first."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Pull requests, as the hub lists them."""
    token: str | None = None
    """Requests without it get `refusal`."""
    refusal: tuple[int, str] = (401, "RepoNotFound")


class Hub:
    """A test's view of the running hub: what it was asked, and switches that make it fail."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        """Method and path of each request, with the byte range that it asks for."""
        self.cuts: list[int] = []
        """After how many bytes each of the next weight downloads breaks off, in order."""
        self.bytes_per_s = 0.0
        """How fast weights are sent; 0 means at full speed."""
        self.down: int | None = None
        """If set, the status that every request gets."""
        self.silent = False
        """Whether requests get no answer at all."""

    def add(self, id: str, files: dict[str, bytes] | Path, *, reference: str = "main") -> str:
        """Commits `files`, or those of a folder; returns the commit."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir()}
        commit = hashlib.sha1(repr((id, reference, sorted(files.items()))).encode()).hexdigest()
        repository = self.repositories.setdefault(id, Repository())
        repository.commits[commit] = files
        repository.references.setdefault(reference, []).insert(0, commit)
        return commit

    def request(self, id: str, files: dict[str, bytes], *, number: int, author: str) -> str:
        """Opens a pull request that adds `files` to main; returns its commit."""
        repository = self.repositories[id]
        (base, *_) = repository.references["main"]
        commit = self.add(id, repository.commits[base] | files, reference=f"refs/pr/{number}")
        repository.references[f"refs/pr/{number}"].append(base)
        repository.requests.append(
            {
                "num": number,
                "title": "Adding `safetensors` variant of this model",
                "author": {"name": author},
                "createdAt": "2024-01-01T00:00:00.000Z",
                "status": "open",
                "isPullRequest": True,
                "repo": {"name": id, "type": "model"},
            }
        )
        return commit


class _RefusedError(Exception):
    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.hub.asked.append(f"{self.command} {self.path} {wanted}".strip())
        while self.hub.silent:
            time.sleep(0.1)
        try:
            if self.hub.down is not None:
                raise _RefusedError(self.hub.down, "Down")
            url = urlsplit(self.path)
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            if parts[:2] == ["api", "models"]:
                self._send_json(self._api("/".join(parts[2:4]), parts[4:], parse_qs(url.query)))
            elif len(parts) > 4 and parts[2] == "resolve":
                self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                raise _RefusedError(404, "NotFound")
        except _RefusedError as refused:
            self.send_response(refused.status)
            self.send_header("X-Error-Code", refused.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _repository(self, id: str) -> Repository:
        repository = self.hub.repositories.get(id)
        if repository is None:
            raise _RefusedError(401, "RepoNotFound")  # as the hub does for anyone without a token
        if repository.token not in (None, self.headers.get("Authorization", "")[len("Bearer ") :]):
            raise _RefusedError(*repository.refusal)
        return repository

    def _commits(self, id: str, revision: str) -> list[str]:
        repository = self._repository(id)
        if revision in repository.commits:
            return [revision]
        if revision not in repository.references:
            raise _RefusedError(404, "RevisionNotFound")
        return repository.references[revision]

    def _api(self, id: str, rest: list[str], query: dict[str, list[str]]) -> object:
        what, revision = (*rest, "main")[0] if rest else "", (rest[1:] or ["main"])[0]
        if what == "discussions":
            (author,) = query.get("author", [""])
            found = [
                r for r in self._repository(id).requests if author in ("", r["author"]["name"])
            ]
            return {"discussions": found, "count": len(found), "start": 0}
        commits = self._commits(id, revision)
        if what == "commits":
            return [
                {
                    "id": commit,
                    "authors": [],
                    "date": "2024-01-01T00:00:00.000Z",
                    "title": "",
                    "message": "",
                }
                for commit in commits
            ]
        files = self._repository(id).commits[commits[0]]
        if what == "tree":
            return [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in files.items()
            ]
        return {"id": id, "sha": commits[0], "siblings": [{"rfilename": name} for name in files]}

    def _send_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, id: str, revision: str, name: str) -> None:
        (commit, *_) = self._commits(id, revision)
        data = self._repository(id).commits[commit].get(name)
        if data is None:
            raise _RefusedError(404, "EntryNotFound")
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self._send_slowly(data[start:], name)

    def _send_slowly(self, data: bytes, name: str) -> None:
        weights = name.endswith(".safetensors")
        end = self.hub.cuts.pop(0) if weights and self.hub.cuts else len(data)
        step = int(self.hub.bytes_per_s / 20) if weights else 0
        for begin in range(0, end, step or len(data)):
            self.wfile.write(data[begin : min(end, begin + (step or len(data)))])
            if step:
                time.sleep(0.05)
        if end < len(data):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub on a free loopback port."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that went away

    class Handler(_Handler):
        pass

    with Server(("127.0.0.1", 0), Handler) as server:
        Handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Handler.hub
        finally:
            Handler.hub.silent = False
            server.shutdown()
            thread.join()
