"""What Immich's server sends to its machine learning:
server/src/repositories/machine-learning.repository.ts of its source, read in 2026."""

import json
from typing import Any

import httpx
from report import MODEL, Report, run

PING_S = 2.0  # its own time limit


class MachineLearningError(Exception):
    """What Immich makes of an answer that is not 2xx; it tries its next address then."""


def main(report: Report) -> None:
    def predict(
        entries: dict[str, Any], image: bytes | None = None, text: str = ""
    ) -> dict[str, Any]:
        # As the FormData of Node.js writes it: a blob has a file name and a type.
        form: dict[str, Any] = {"entries": (None, json.dumps(entries))}
        if image is None:
            form["text"] = (None, text)
        else:
            form["image"] = ("blob", image, "application/octet-stream")
        answer = httpx.post(f"{report.url}/predict", files=form, timeout=60)
        found: dict[str, Any] = answer.json()
        if not answer.is_success:
            raise MachineLearningError(f"status {answer.status_code}: {found['detail']}")
        return found

    answer = httpx.get(f"{report.url}/ping", timeout=PING_S)
    report.check("ping", lambda: (answer.status_code, answer.text) == (200, "pong"))

    visual = {"clip": {"visual": {"modelName": MODEL}}}
    found = [predict(visual, photo.read_bytes()) for photo in report.photos]
    report.same("images", [json.loads(one["clip"]) for one in found], report.photo_items)
    report.check("sizes", lambda: all(one["imageWidth"] == 640 for one in found))
    for options in ({}, {"language": "en-US"}):
        textual = {"clip": {"textual": {"modelName": MODEL, "options": options}}}
        texts = [json.loads(predict(textual, text=text)["clip"]) for text in report.texts]
        report.same("texts", texts, report.texts)

    report.refused(
        "another model",
        MachineLearningError,
        "status 404: This service does not have that model",
        lambda: predict({"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}, b"x"),
    )
    report.refused(
        "a broken image",
        MachineLearningError,
        "status 422: image: The image is broken or cut short",
        lambda: predict(visual, report.photos[0].read_bytes()[:400]),
    )
    faces = {"detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}}}
    report.refused(
        "faces",
        MachineLearningError,
        "status 422: This service does clip alone",
        lambda: predict({"facial-recognition": faces}, report.photos[0].read_bytes()),
    )


if __name__ == "__main__":
    run("httpx", main, name="Immich's requests")
