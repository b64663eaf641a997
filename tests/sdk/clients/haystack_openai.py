"""OpenAITextEmbedder and OpenAIDocumentEmbedder of Haystack: https://pypi.org/project/haystack-ai."""

import openai
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    key = Secret.from_token("none")
    where = {"api_base_url": f"{report.url}/v1", "api_key": key, "max_retries": 0}
    texts = list(report.texts)

    found = OpenAITextEmbedder(model=MODEL, **where).run(texts[0])
    report.same("a text", [found["embedding"]], texts[:1])
    report.check("usage", lambda: found["meta"]["usage"]["total_tokens"] > 0)
    documents = [Document(content=text) for text in texts]
    found = OpenAIDocumentEmbedder(model=MODEL, **where).run(documents)["documents"]
    report.same("documents", [document.embedding for document in found], texts)
    found = OpenAITextEmbedder(model=SHORTENED, dimensions=8, **where).run(texts[0])
    report.same("dimensions", [found["embedding"]], texts[:1], model=SHORTENED, dimensions=8)
    report.refused(
        *("an unknown model", openai.NotFoundError, "does not have that model"),
        lambda: OpenAITextEmbedder(model="text-embedding-3-small", **where).run("a cat"),
    )


if __name__ == "__main__":
    run("haystack-ai", main)
