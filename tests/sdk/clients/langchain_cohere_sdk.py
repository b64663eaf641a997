"""LangChain's classes for Cohere: https://github.com/langchain-ai/langchain-cohere."""

import asyncio

import cohere
import numpy as np
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document
from report import MODEL, Report, run


def main(report: Report) -> None:
    texts = list(report.texts)
    embeddings = CohereEmbeddings(model=MODEL, cohere_api_key="none", base_url=report.url)
    report.same("embed_documents", embeddings.embed_documents(texts), texts)
    report.same("embed_query", [embeddings.embed_query(texts[0])], texts[:1])
    report.same("aembed_query", [asyncio.run(embeddings.aembed_query(texts[0]))], texts[:1])
    whole = CohereEmbeddings(
        model=MODEL, cohere_api_key="none", base_url=report.url, embedding_types=["int8"]
    )
    report.equal("int8", whole.embed_documents(texts), report.vectors(texts, dtype="int8"))

    vectors = report.vectors(["a cat", *texts])
    scores = vectors[1:] @ vectors[0]
    order = np.argsort(-scores).tolist()
    reranker = CohereRerank(model=MODEL, cohere_api_key="none", base_url=report.url, top_n=2)
    found = reranker.rerank(texts, "a cat")
    report.check("rerank", lambda: [result["index"] for result in found] == order[:2])
    best = reranker.compress_documents([Document(text) for text in texts], "a cat")
    report.check("best", lambda: [d.page_content for d in best] == [texts[i] for i in order[:2]])
    score = best[0].metadata["relevance_score"]
    report.check("score", lambda: bool(np.isclose(score, scores[order[0]], atol=1e-6)))

    strangers = CohereEmbeddings(
        model="embed-v4.0", cohere_api_key="none", base_url=report.url, max_retries=1
    )
    report.refused(
        "an unknown model",
        cohere.NotFoundError,
        "GET /v1/models",
        lambda: strangers.embed_query("a cat"),
    )


if __name__ == "__main__":
    run("langchain-cohere", main)
