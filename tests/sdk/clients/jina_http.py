"""What the documentation of Jina, NVIDIA NIM, vLLM and infinity has users send, without an SDK."""

import base64
from typing import Any

import httpx
import numpy as np
from report import MODEL, SHORTENED, Report, run


class RefusedError(Exception):
    """With the message of the service."""


def main(report: Report) -> None:
    def post(body: dict[str, Any], path: str = "/v1/embeddings") -> list[Any]:
        headers = {"Authorization": "Bearer none"}
        answer = httpx.post(f"{report.url}{path}", json=body, headers=headers, timeout=60)
        if answer.status_code != 200:
            raise RefusedError(f"{answer.status_code}: {answer.json()['detail']}")
        return [row["embedding"] for row in answer.json()["data"]]

    texts = list(report.texts)
    items: list[Any] = [{"text": texts[0]}, *report.photo_items]

    jina = {
        "model": MODEL,
        "task": "retrieval.passage",
        "normalized": True,
        "late_chunking": False,
        "embedding_type": "float",
        "input": [
            {"text": texts[0]},
            {"image": report.photo_urls[0]},
            {"image": report.data_uris[1]},
            {"image": report.data_uris[2].partition(",")[2]},
        ],
    }
    report.same("Jina", post(jina), items)
    rows = post({**jina, "embedding_type": "base64"})
    found = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    report.same("Jina, base64", found, items)
    ubinary = report.vectors(items, dtype="ubinary")
    report.equal("Jina, ubinary", post({**jina, "embedding_type": "ubinary"}), ubinary)
    report.equal("Jina, binary", post({**jina, "embedding_type": "binary"}), ubinary - 128)
    rows = post({**jina, "embedding_type": ["float", "binary"]})
    report.same("Jina, float among several", [row["float"] for row in rows], items)
    report.equal("Jina, binary among several", [row["binary"] for row in rows], ubinary - 128)
    rows = post({**jina, "model": SHORTENED, "dimensions": 8})
    report.same("Jina, dimensions", rows, items, model=SHORTENED, dimensions=8)

    nim = {"model": MODEL, "input_type": "passage", "encoding_format": "float", "truncate": "NONE"}
    report.same("NIM", post({**nim, "input": texts}), texts)
    report.same("NIM, images", post({**nim, "input": report.data_uris}), report.photo_items)

    image = {"type": "image_url", "image_url": {"url": report.data_uris[0]}}
    for content, expected in (
        ([image], report.photo_items[:1]),
        ([{"type": "text", "text": texts[0]}], texts[:1]),
    ):
        vllm = {
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
            "encoding_format": "float",
        }
        report.same("vLLM", post(vllm), expected)

    infinity = {"model": MODEL, "input": report.photo_urls, "modality": "image"}
    report.same("infinity", post(infinity, "/embeddings"), report.photo_items)

    for what, sentence, call in (
        ("messages and input", "400: messages replaces input", lambda: post({**vllm, "input": []})),
        (
            "START",
            "400: truncate must be",
            lambda: post({**nim, "input": "a", "truncate": "START"}),
        ),
        (
            "multivector",
            "400: return_multivector",
            lambda: post({**jina, "return_multivector": True}),
        ),
    ):
        report.refused(what, RefusedError, sentence, call)


if __name__ == "__main__":
    run("httpx", main, name="Jina, NIM, vLLM, infinity by httpx")
