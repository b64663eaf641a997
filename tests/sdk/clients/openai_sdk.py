"""OpenAI's SDK: https://github.com/openai/openai-python."""

import asyncio

import openai
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    client = openai.OpenAI(base_url=f"{report.url}/v1", api_key="none", max_retries=0)
    texts = list(report.texts)

    # The SDK asks for base64 unless told otherwise, and decodes it itself.
    answer = client.embeddings.create(model=MODEL, input=texts)
    report.same("texts", [row.embedding for row in answer.data], texts)
    report.check("usage", lambda: answer.usage.total_tokens > 0 and answer.model == MODEL)
    answer = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    report.same("texts as floats", [row.embedding for row in answer.data], texts)
    answer = client.embeddings.create(model=MODEL, input=texts[0])
    report.same("one text", [answer.data[0].embedding], texts[:1])

    answer = client.embeddings.create(model=MODEL, input=report.data_uris)
    report.same("data URIs", [row.embedding for row in answer.data], report.photo_items)
    answer = client.embeddings.create(model=MODEL, input=report.photo_urls)
    report.same("URLs", [row.embedding for row in answer.data], report.photo_items)
    # Its types know strings only, but it sends what it is given.
    answer = client.embeddings.create(model=MODEL, input=report.photo_items)
    report.same("items", [row.embedding for row in answer.data], report.photo_items)
    mixed = [{"image": report.data_uris[0]}, {"text": texts[0]}]
    answer = client.embeddings.create(model=MODEL, input=[], extra_body={"input": mixed})
    report.same("extra_body", [row.embedding for row in answer.data], mixed)

    answer = client.embeddings.create(model=SHORTENED, input=texts, dimensions=8)
    found = [row.embedding for row in answer.data]
    report.same("dimensions", found, texts, model=SHORTENED, dimensions=8)
    for kind in ("int8", "ubinary"):
        answer = client.embeddings.create(
            model=MODEL, input=texts, encoding_format="float", extra_body={"dtype": kind}
        )
        found = [row.embedding for row in answer.data]
        report.equal(kind, found, report.vectors(texts, dtype=kind))

    names = [model.id for model in client.models.list()]
    report.check("models", lambda: names == [MODEL, SHORTENED])
    report.check("model", lambda: client.models.retrieve(MODEL).id == MODEL)

    async def embed_async() -> list[float]:
        async with openai.AsyncOpenAI(base_url=f"{report.url}/v1", api_key="none") as client:
            return (await client.embeddings.create(model=MODEL, input=texts[0])).data[0].embedding

    report.same("AsyncOpenAI", [asyncio.run(embed_async())], texts[:1])

    create = client.embeddings.create
    report.refused(
        "an unknown model",
        openai.NotFoundError,
        "does not have that model",
        lambda: create(model="text-embedding-3-small", input="a cat"),
    )
    report.refused(
        "dimensions",
        openai.BadRequestError,
        "dimensions",
        lambda: create(model=MODEL, input="a cat", dimensions=8),
    )
    report.refused(
        "token ids",
        openai.BadRequestError,
        "check_embedding_ctx_length=False",
        lambda: create(model=MODEL, input=[[1, 2, 3]]),
    )
    report.refused(
        "no image",
        openai.UnprocessableEntityError,
        "broken or cut short",
        lambda: create(model=MODEL, input=["data:image/png;base64,iVBORw0KGgo="]),
    )


if __name__ == "__main__":
    run("openai", main)
