"""What a client's script compares its answers with, and how it tells what came of it.

A script is called with the service's address and a folder of photos. It makes its calls as a user
would, and prints its report as JSON on the last line:

    def main(report: Report) -> None:
        report.same("texts", client.embed(report.texts), report.texts)

    if __name__ == "__main__":
        run("voyageai", main)
"""

import base64
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

LEAST_COSINE = 0.99999
MODEL = "clip-vit-base-patch32"
SHORTENED = "clip-matryoshka"  # whose vectors may be shortened


class Report:
    """Checks, each of which counts, and what was wrong."""

    texts = ("a cat on a sofa", "two dogs", "naïve café, 北京")

    def __init__(self, name: str, package: str, url: str, folder: Path) -> None:
        self.url = url
        """Of the service, without a path."""
        self.photos = sorted(folder.glob("*.jpg"))
        """Paths of JPEGs, which the service also takes as `{"path": name}`."""
        self.photo_urls = [f"{os.environ['PHOTOS_URL']}/{photo.name}" for photo in self.photos]
        """Where the service can fetch the same photos."""
        self.data_uris = [
            f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
            for photo in self.photos
        ]
        self._told: dict[str, Any] = {
            "client": name,
            "version": version(package),
            **{"calls": 0, "exact": 0, "errors": 0, "least_cosine": None, "problems": []},
        }

    @property
    def photo_items(self) -> list[dict[str, str]]:
        """The photos as raylens's own items."""
        return [{"path": photo.name} for photo in self.photos]

    def vectors(self, items: Any, **options: Any) -> np.ndarray[Any, Any]:
        """What `/v1/embeddings` says, (N, D)."""
        body = {"input": list(items), **options}
        answer = httpx.post(f"{self.url}/v1/embeddings", json=body, timeout=60)
        answer.raise_for_status()
        return np.array([entry["embedding"] for entry in answer.json()["data"]])

    def same(self, what: str, found: Any, items: Any, **options: Any) -> None:
        """Floats that should point where those of `/v1/embeddings` do."""
        vectors, expected = np.array(found, np.float64), self.vectors(items, **options)
        self._told["calls"] += 1
        if vectors.shape != expected.shape:
            self._problem(f"{what}: shape {vectors.shape} instead of {expected.shape}")
            return
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        least = float(((vectors * expected).sum(axis=1) / norms).min())
        known = self._told["least_cosine"]
        self._told["least_cosine"] = least if known is None else min(known, least)
        if not least >= LEAST_COSINE:
            self._problem(f"{what}: cosine {least}")

    def equal(self, what: str, found: Any, expected: Any) -> None:
        """Integers that should be equal to the bit."""
        self._told["exact"] += 1
        one, other = np.array(found), np.array(expected)
        self.check(what, lambda: one.shape == other.shape and bool((one == other).all()))

    def check(self, what: str, holds: Callable[[], bool]) -> None:
        self._told["calls"] += 1
        if not holds():
            self._problem(what)

    def refused(
        self, what: str, error: type[Exception], sentence: str, call: Callable[[], Any]
    ) -> None:
        """A call that should raise the client's own `error`, with the service's sentence in it."""
        self._told["calls"] += 1
        try:
            call()
        except Exception as raised:
            if type(raised) is not error:
                self._problem(f"{what}: {type(raised).__name__}: {raised}")
            elif sentence not in str(raised):
                self._problem(f"{what}: the message is {str(raised)!r}")
            else:
                self._told["errors"] += 1
        else:
            self._problem(f"{what}: nothing was raised")

    def _problem(self, what: str) -> None:
        self._told["problems"].append(what)

    def crashed(self) -> None:
        """Tells of the exception that is being handled."""
        self._problem(traceback.format_exc(limit=-3))

    def printed(self) -> str:
        return json.dumps(self._told)


def run(package: str, main: Callable[[Report], None], *, name: str = "") -> None:
    """Runs a script's `main` and prints its report; `package` is the client's name on PyPI."""
    report = Report(name or package, package, sys.argv[1], Path(sys.argv[2]))
    try:
        main(report)
    except Exception:
        report.crashed()
    print(report.printed())
