"""Haystack's components for Cohere: https://haystack.deepset.ai/integrations/cohere."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read on import

import numpy as np
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import (
    CohereDocumentEmbedder,
    CohereDocumentImageEmbedder,
    CohereTextEmbedder,
)
from haystack_integrations.components.embedders.cohere.embedding_types import EmbeddingTypes
from haystack_integrations.components.rankers.cohere import CohereRanker
from report import MODEL, Report, run


def main(report: Report) -> None:
    service = {"api_key": Secret.from_token("none"), "api_base_url": report.url, "model": MODEL}
    texts = list(report.texts)
    documents = [Document(content=text) for text in texts]

    found = CohereTextEmbedder(**service).run(texts[0])["embedding"]
    report.same("CohereTextEmbedder", [found], texts[:1])
    embedded = CohereDocumentEmbedder(**service, progress_bar=False).run(documents)["documents"]
    report.same("CohereDocumentEmbedder", [d.embedding for d in embedded], texts)
    embedder = CohereDocumentEmbedder(
        **service, progress_bar=False, embedding_type=EmbeddingTypes.INT8
    )
    embedded = embedder.run(documents)["documents"]
    report.equal("int8", [d.embedding for d in embedded], report.vectors(texts, dtype="int8"))

    pictures = [Document(meta={"file_path": str(photo)}) for photo in report.photos]
    images = CohereDocumentImageEmbedder(**service, progress_bar=False)
    embedded = images.run(pictures)["documents"]
    report.same("CohereDocumentImageEmbedder", [d.embedding for d in embedded], report.photo_items)

    vectors = report.vectors(["a cat", *texts])
    order = np.argsort(-(vectors[1:] @ vectors[0])).tolist()
    ranked = CohereRanker(**service, top_k=2).run(query="a cat", documents=documents)["documents"]
    report.check(
        "CohereRanker", lambda: [d.content for d in ranked] == [texts[i] for i in order[:2]]
    )


if __name__ == "__main__":
    run("cohere-haystack", main)
