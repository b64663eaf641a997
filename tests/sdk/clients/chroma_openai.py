"""OpenAIEmbeddingFunction of Chroma: https://pypi.org/project/chromadb."""

import chromadb
import openai
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction
from report import MODEL, Report, run


def main(report: Report) -> None:
    def function(model: str) -> OpenAIEmbeddingFunction:
        return OpenAIEmbeddingFunction(
            model_name=model, api_base=f"{report.url}/v1", api_key="none"
        )

    texts = list(report.texts)
    report.same("texts", function(MODEL)(texts), texts)

    collection = chromadb.EphemeralClient().create_collection(
        "photos", embedding_function=function(MODEL)
    )
    collection.add(
        ids=[photo.name for photo in report.photos],
        embeddings=[list(row) for row in report.vectors(report.photo_items)],
    )
    collection.add(ids=["text"], documents=texts[:1])
    stored = collection.get(ids=["text"], include=["embeddings"])["embeddings"]
    report.same("a document", stored, texts[:1])
    best = collection.query(query_texts=texts[:1], n_results=1)["ids"]
    report.check("a text finds itself", lambda: best == [["text"]])
    report.refused(
        *("an unknown model", openai.NotFoundError, "does not have that model"),
        lambda: function("text-embedding-3-small")(texts),
    )


if __name__ == "__main__":
    run("chromadb", main)
