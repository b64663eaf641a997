"""Voyage's SDK for images and for rerank: https://github.com/voyage-ai/voyageai-python."""

import asyncio
from typing import Any

import numpy as np
import voyageai
from PIL import Image
from report import MODEL, SHORTENED, Report, run


def main(report: Report) -> None:
    client = voyageai.Client(api_key="none", base_url=f"{report.url}/v1")
    embed(report, client)
    rerank(report, client)
    errors(report, client)


def embed(report: Report, client: voyageai.Client) -> None:
    text = report.texts[0]
    pictures = [Image.open(photo) for photo in report.photos]
    pixels = sum(picture.width * picture.height for picture in pictures)
    items = [*report.photo_items, text]
    # The client encodes the decoded pixels anew, without loss.
    inputs = [*([picture] for picture in pictures), [text]]

    answer = client.multimodal_embed(inputs=inputs, model=MODEL, input_type="document")
    report.same("PIL images", answer.embeddings, items)
    report.check("pixels", lambda: answer.image_pixels == pixels and answer.video_pixels == 0)
    report.check("tokens", lambda: answer.total_tokens == answer.text_tokens > 0)

    segments = [
        *({"type": "image_url", "image_url": url} for url in report.photo_urls),
        {"type": "text", "text": text},
    ]
    contents = [{"content": [segment]} for segment in segments]
    answer = client.multimodal_embed(inputs=contents, model=MODEL)
    report.same("URLs", answer.embeddings, items)
    segments = [{"type": "image_base64", "image_base64": uri} for uri in report.data_uris]
    contents = [{"content": [segment]} for segment in segments]
    answer = client.multimodal_embed(inputs=contents, model=MODEL)
    report.same("data URIs", answer.embeddings, report.photo_items)

    int8 = report.vectors(report.photo_items, dtype="int8").astype(int)
    bits = report.vectors(report.photo_items, dtype="ubinary").astype(int)
    for kind, expected in (
        ("int8", int8),
        ("uint8", int8 + 128),
        ("ubinary", bits),
        ("binary", bits - 128),
    ):
        answer = client.multimodal_embed(inputs=contents, model=MODEL, output_dtype=kind)
        report.equal(kind, answer.embeddings, expected)
    answer = client.multimodal_embed(inputs=contents, model=SHORTENED, output_dimension=8)
    found = answer.embeddings
    report.same("output_dimension", found, report.photo_items, model=SHORTENED, dimensions=8)

    async def embed_async() -> Any:
        client = voyageai.AsyncClient(api_key="none", base_url=f"{report.url}/v1")
        return (await client.multimodal_embed(inputs=[[text]], model=MODEL)).embeddings

    report.same("AsyncClient", asyncio.run(embed_async()), [text])


def rerank(report: Report, client: voyageai.Client) -> None:
    query, texts = "a cat", list(report.texts)
    vectors = report.vectors([query, *texts])
    scores = vectors[1:] @ vectors[0]
    order = np.argsort(-scores).tolist()
    answer = client.rerank(query=query, documents=texts, model=MODEL)
    report.check("rerank", lambda: [result.index for result in answer.results] == order)
    found = [result.relevance_score for result in answer.results]
    report.check("scores", lambda: bool(np.allclose(found, scores[order], atol=1e-6)))
    report.check("tokens of rerank", lambda: answer.total_tokens > 0)
    answer = client.rerank(query=query, documents=texts, model=MODEL, top_k=1)
    report.check("top_k", lambda: [result.index for result in answer.results] == order[:1])


def errors(report: Report, client: voyageai.Client) -> None:
    report.refused(
        "several parts",
        voyageai.error.InvalidRequestError,
        "exactly one part",
        lambda: client.multimodal_embed(inputs=[["a", "b"]], model=MODEL),
    )
    report.refused(
        "a broken image",
        voyageai.error.MalformedRequestError,
        "image",
        lambda: client.multimodal_embed(
            inputs=[
                {
                    "content": [
                        {
                            "type": "image_base64",
                            "image_base64": "data:image/png;base64,iVBORw0KGgo=",
                        }
                    ]
                }
            ],
            model=MODEL,
        ),
    )
    report.refused(
        "an unknown model",
        voyageai.error.APIError,
        "GET /v1/models",
        lambda: client.multimodal_embed(inputs=[["a"]], model="voyage-multimodal-3"),
    )


if __name__ == "__main__":
    run("voyageai", main)
