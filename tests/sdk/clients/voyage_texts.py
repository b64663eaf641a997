"""Voyage's SDK for texts, which speaks `/v1/embeddings`: https://github.com/voyage-ai/voyageai-python."""

import asyncio

import voyageai
import voyageai.error
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    client = voyageai.Client(api_key="none", base_url=f"{report.url}/v1")
    texts = list(report.texts)

    answer = client.embed(texts, model=MODEL)
    report.same("texts", answer.embeddings, texts)
    report.check("usage", lambda: answer.total_tokens > 0)
    for input_type in ("query", "document"):
        found = client.embed(texts, model=MODEL, input_type=input_type, output_dtype="float")
        report.same(input_type, found.embeddings, texts)
    found = client.embed(texts, model=SHORTENED, output_dimension=8)
    report.same("output_dimension", found.embeddings, texts, model=SHORTENED, dimensions=8)

    int8, ubinary = (report.vectors(texts, dtype=kind) for kind in ("int8", "ubinary"))
    for dtype, expected in (
        ("int8", int8),
        ("uint8", int8 + 128),
        ("ubinary", ubinary),
        ("binary", ubinary - 128),
    ):
        found = client.embed(texts, model=MODEL, output_dtype=dtype)
        report.equal(dtype, found.embeddings, expected)

    async def embed_async() -> list[list[float]]:
        client = voyageai.AsyncClient(api_key="none", base_url=f"{report.url}/v1")
        return (await client.embed(texts, model=MODEL)).embeddings

    report.same("AsyncClient", asyncio.run(embed_async()), texts)

    # It has a class of its own for 400, and one for all of 404, 413 and 415.
    bad_request, other = voyageai.error.InvalidRequestError, voyageai.error.APIError
    embed = client.embed
    report.refused(
        *("output_dimension", bad_request, "leave output_dimension out"),
        lambda: embed(texts, model=MODEL, output_dimension=8),
    )
    report.refused(
        *("a long text", other, "longer than"),
        lambda: embed(["long " * 100], model=MODEL, truncation=False),
    )
    report.refused(
        *("an unknown model", other, "does not have that model"),
        lambda: embed(texts, model="voyage-3"),
    )


if __name__ == "__main__":
    run("voyageai", main)
