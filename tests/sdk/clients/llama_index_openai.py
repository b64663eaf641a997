"""OpenAIEmbedding of LlamaIndex: https://pypi.org/project/llama-index-embeddings-openai."""

import openai
from llama_index.embeddings.openai import OpenAIEmbedding
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    def embedding(model: str, **options: object) -> OpenAIEmbedding:
        return OpenAIEmbedding(
            model_name=model,
            api_base=f"{report.url}/v1",
            api_key="none",
            max_retries=0,
            **options,
        )

    texts = list(report.texts)
    report.same("texts", embedding(MODEL).get_text_embedding_batch(texts), texts)
    report.same("a query", [embedding(MODEL).get_query_embedding(texts[0])], texts[:1])
    found = embedding(MODEL).get_text_embedding_batch(report.data_uris)
    report.same("photos as data URIs", found, report.photo_items)
    found = embedding(SHORTENED, dimensions=8).get_text_embedding_batch(texts)
    report.same("dimensions", found, texts, model=SHORTENED, dimensions=8)
    report.refused(
        *("an unknown model", openai.NotFoundError, "does not have that model"),
        lambda: embedding("gpt-7").get_text_embedding("a cat"),
    )


if __name__ == "__main__":
    run("llama-index-embeddings-openai", main)
