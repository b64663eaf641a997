"""OpenAIEmbeddings of LangChain: https://pypi.org/project/langchain-openai."""

import openai
from langchain_openai import OpenAIEmbeddings
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    def embeddings(model: str, **options: object) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(
            model=model,
            base_url=f"{report.url}/v1",
            api_key="none",
            check_embedding_ctx_length=False,
            max_retries=0,
            **options,
        )

    texts = list(report.texts)
    report.same("embed_documents", embeddings(MODEL).embed_documents(texts), texts)
    report.same("embed_query", [embeddings(MODEL).embed_query(texts[0])], texts[:1])
    found = embeddings(MODEL).embed_documents(report.data_uris)
    report.same("photos as data URIs", found, report.photo_items)
    found = embeddings(SHORTENED, dimensions=8).embed_documents(texts)
    report.same("dimensions", found, texts, model=SHORTENED, dimensions=8)
    report.refused(
        *("an unknown model", openai.NotFoundError, "does not have that model"),
        lambda: embeddings("text-embedding-3-small").embed_query("a cat"),
    )
    # What LangChain sends without check_embedding_ctx_length=False: lists of token ids, which its
    # tokenizer makes of a text after a download.
    report.refused(
        *("token ids", openai.BadRequestError, "check_embedding_ctx_length=False"),
        lambda: embeddings(MODEL).embed_documents([[9064, 8415]]),
    )


if __name__ == "__main__":
    run("langchain-openai", main)
