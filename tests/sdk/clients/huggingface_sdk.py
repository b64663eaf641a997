"""huggingface_hub's client of Text Embeddings Inference:
https://github.com/huggingface/huggingface_hub.
"""

import asyncio

import httpx
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from report import Report, run

LONG = "a very long sentence " * 50


def main(report: Report) -> None:
    texts = list(report.texts)
    client = InferenceClient(model=report.url)  # it posts to this very address
    embed = client.feature_extraction

    report.same("texts", embed(texts), texts)
    report.same("one text", embed(texts[0]), texts[:1])
    report.same("data URIs", embed(report.data_uris), report.photo_items)
    report.same("URLs", embed(report.photo_urls), report.photo_items)
    report.same(
        "/embed", InferenceClient(model=f"{report.url}/embed").feature_extraction(texts), texts
    )
    report.same(
        "truncated",
        embed(LONG, truncate=True, truncation_direction="right", prompt_name="query"),
        [LONG],
    )
    raw = report.vectors(texts, normalize=False)
    report.equal("not normalised", embed(texts, normalize=False), raw.astype("float32"))

    async def embed_async() -> object:
        async with AsyncInferenceClient(model=report.url) as client:
            return await client.feature_extraction(texts)

    report.same("AsyncInferenceClient", asyncio.run(embed_async()), texts)

    # The client has no calls for these.
    info = httpx.get(f"{report.url}/info").json()
    report.check("info", lambda: info["max_client_batch_size"] == 2048)
    report.check("health", lambda: httpx.get(f"{report.url}/health").status_code == 200)

    report.refused("a long text", HfHubHTTPError, "longer than the", lambda: embed(LONG))
    report.refused("an empty list", BadRequestError, "inputs is empty", lambda: embed([]))
    report.refused("dimensions", BadRequestError, "dimensions", lambda: embed(texts, dimensions=8))
    report.refused(
        "the beginning cut off",
        BadRequestError,
        "at their end only",
        lambda: embed(LONG, truncate=True, truncation_direction="left"),
    )
    report.refused(
        "no image",
        HfHubHTTPError,
        "broken or cut short",
        lambda: embed("data:image/png;base64,iVBORw0KGgo="),
    )


if __name__ == "__main__":
    run("huggingface_hub", main)
