"""Requests for rerank as Jina's, vLLM's and text-embeddings-inference's users write them."""

from typing import Any

import httpx
import numpy as np
from report import MODEL, Report, run


def main(report: Report) -> None:
    texts = list(report.texts)
    vectors = report.vectors(["a cat", *texts, *report.photo_items])
    scores = vectors[1:] @ vectors[0]
    text_order = np.argsort(-scores[: len(texts)]).tolist()

    def post(path: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"{report.url}{path}", json={"model": MODEL, **body}, timeout=60)
        return answer.raise_for_status().json()

    def indices(answer: Any) -> list[int]:
        return [result["index"] for result in answer["results"]]

    jina = {
        "query": "a cat",
        "documents": [
            *({"text": text} for text in texts),
            *({"image": u} for u in report.data_uris),
        ],
        "top_n": 4,
    }
    found = post("/v1/rerank", jina)
    report.check("Jina's", lambda: indices(found) == np.argsort(-scores).tolist()[:4])
    found = post("/v1/rerank", {"query": "a cat", "documents": texts, "return_documents": True})
    first = texts[text_order[0]]
    report.check("document", lambda: found["results"][0]["document"] == {"text": first})

    content = [{"type": "image_url", "image_url": {"url": url}} for url in report.data_uris]
    vllm = {"query": "a cat", "documents": {"content": content}}
    order = np.argsort(-scores[len(texts) :]).tolist()
    answers = [post(path, vllm) for path in ("/rerank", "/v1/rerank", "/v2/rerank")]
    report.check("vLLM's", lambda: [indices(answer) for answer in answers] == [order] * 3)
    report.check("usage", lambda: answers[0]["usage"]["total_tokens"] > 0)

    found = post("/rerank", {"query": "a cat", "texts": texts, "return_text": True})
    expected = [texts[index] for index in text_order]
    report.check("TEI's", lambda: [rank["text"] for rank in found] == expected)
    score = scores[text_order[0]]
    report.check("score", lambda: bool(np.isclose(found[0]["score"], score, atol=1e-6)))


if __name__ == "__main__":
    run("httpx", main, name="rerank by httpx")
