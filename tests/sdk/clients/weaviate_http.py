"""What Weaviate sends to its module multi2vec-clip: modules/multi2vec-clip/clients of its
source, read at v1.38 (commit adcffc5)."""

import json
from typing import Any

import httpx
from report import Report, run

# As Go's HTTP client and its JSON write it: no spaces, escaped <, > and &, empty lists left out.
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "Go-http-client/1.1",
    "Accept-Encoding": "gzip",
}
READY_S = 0.5  # its own time limit


class VectorizationError(Exception):
    """What Weaviate makes of an answer above 399."""


def main(report: Report) -> None:
    def vectorize(texts: list[str], images: list[str]) -> dict[str, Any]:
        asked = {"texts": texts, "images": images}
        body = json.dumps({k: v for k, v in asked.items() if v}, separators=(",", ":"))
        for letter in "<>&":
            body = body.replace(letter, f"\\u{ord(letter):04x}")
        answer = httpx.post(f"{report.url}/vectorize", content=body, headers=HEADERS, timeout=50)
        found: dict[str, Any] = answer.json()
        if answer.status_code > 399:
            raise VectorizationError(f"fail with status {answer.status_code}: {found['error']}")
        return found

    for path in ("live", "ready"):
        answer = httpx.get(f"{report.url}/.well-known/{path}", timeout=READY_S)
        report.check(path, lambda answer=answer: answer.status_code == 204)
    meta = httpx.get(f"{report.url}/meta").json()
    report.check("meta", lambda: meta["dimensions"] > 0)

    texts = [*report.texts, "<cat> & dog"]
    images = [uri.partition(",")[2] for uri in report.data_uris]
    found = vectorize(texts, images)
    report.same("texts of an object", found["textVectors"], texts)
    report.same("images of an object", found["imageVectors"], report.photo_items)
    found = vectorize(texts[:1], [])
    report.same("nearText", found["textVectors"], texts[:1])
    report.check("no images", lambda: found["imageVectors"] == [])
    found = vectorize([], images[:1])
    report.same("nearImage", found["imageVectors"], report.photo_items[:1])
    found = vectorize([], report.data_uris[:1])
    report.same("a data URI", found["imageVectors"], report.photo_items[:1])

    report.refused(
        "no image",
        VectorizationError,
        "status 415: images[0]: That is not an image",
        lambda: vectorize([], ["aGVsbG8="]),
    )
    report.refused(
        "a broken image",
        VectorizationError,
        "status 422: images[0]: The image is broken or cut short",
        lambda: vectorize(texts, [images[0][:400]]),
    )


if __name__ == "__main__":
    run("httpx", main, name="Weaviate's requests")
