"""Cohere's SDK, versions 1 and 2 of its API: https://github.com/cohere-ai/cohere-python."""

import asyncio
import base64
from typing import Any

import cohere
import numpy as np
from PIL import Image
from report import MODEL, SHORTENED, Report, run

TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


def main(report: Report) -> None:
    client = cohere.ClientV2(api_key="none", base_url=report.url, max_retries=0)
    version_1 = cohere.Client(api_key="none", base_url=report.url, max_retries=0)
    embed(report, client)
    embed_by_version_1(report, version_1)
    rerank(report, client, version_1)
    errors(report, client)


def embed(report: Report, client: cohere.ClientV2) -> None:
    texts = list(report.texts)
    document: dict[str, Any] = {"model": MODEL, "input_type": "search_document"}

    answer = client.embed(**document, texts=texts, embedding_types=TYPES)
    every_type(report, "texts", answer.embeddings, texts)
    report.check("texts come back", lambda: answer.texts == texts)
    report.check("tokens", lambda: answer.meta.billed_units.input_tokens > 0)
    report.check("no warnings", lambda: answer.meta.warnings == [])
    answer = client.embed(**document, texts=texts)
    report.same("floats by default", answer.embeddings.float, texts)
    answer = client.embed(**document, texts=["word " * 500], truncate="END")
    report.check("truncated", lambda: "texts[0]" in answer.meta.warnings[0])

    embed_images(report, client, "data URIs", report.data_uris)
    embed_images(report, client, "URLs", report.photo_urls)

    inputs = [
        {"content": [{"type": "image_url", "image_url": {"url": report.data_uris[0]}}]},
        {"content": [{"type": "text", "text": texts[0]}]},
    ]
    answer = client.embed(**document, inputs=inputs)
    report.same("inputs", answer.embeddings.float, [report.photo_items[0], texts[0]])

    answer = client.embed(model=SHORTENED, input_type="image", texts=texts, output_dimension=8)
    found = answer.embeddings.float
    report.same("output_dimension", found, texts, model=SHORTENED, dimensions=8)

    async def embed_async() -> Any:
        async with cohere.AsyncClientV2(api_key="none", base_url=report.url) as client:
            return (await client.embed(**document, texts=texts)).embeddings.float

    report.same("AsyncClientV2", asyncio.run(embed_async()), texts)


def embed_images(report: Report, client: cohere.ClientV2, what: str, images: list[str]) -> None:
    answer = client.embed(model=MODEL, input_type="image", images=images, embedding_types=TYPES)
    every_type(report, what, answer.embeddings, report.photo_items)
    report.check("images", lambda: [image_of(i) for i in answer.images] == sizes(report))
    report.check("billed images", lambda: answer.meta.billed_units.images == len(images))


def embed_by_version_1(report: Report, client: cohere.Client) -> None:
    texts = list(report.texts)
    document: dict[str, Any] = {"model": MODEL, "input_type": "search_document"}
    answer = client.embed(**document, texts=texts)
    report.check("floats", lambda: answer.response_type == "embeddings_floats")
    report.same("version 1", answer.embeddings, texts)
    answer = client.embed(**document, texts=texts, embedding_types=TYPES)
    every_type(report, "version 1", answer.embeddings, texts)
    many = [f"text {number}" for number in range(200)]  # which the client sends 96 at a time
    answer = client.embed(**document, texts=many)
    report.same("batches", answer.embeddings, many)
    report.check("texts of batches", lambda: answer.texts == many)
    answer = client.embed(model=MODEL, input_type="image", images=report.data_uris[:1])
    report.same("an image", answer.embeddings, report.photo_items[:1])
    report.check("its size", lambda: [image_of(i) for i in answer.images] == sizes(report)[:1])


def every_type(report: Report, what: str, found: Any, items: list[Any]) -> None:
    floats = report.vectors(items).astype(np.float32)
    report.same(f"{what}: float", found.float, items)
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.base64]
    report.same(f"{what}: base64", decoded, items)
    int8 = report.vectors(items, dtype="int8").astype(int)
    report.equal(f"{what}: int8", found.int8, int8)
    report.equal(f"{what}: uint8", found.uint8, int8 + 128)
    bits = np.packbits(floats > 0, axis=1).astype(int)
    report.equal(f"{what}: ubinary", found.ubinary, bits)
    report.equal(f"{what}: binary", found.binary, bits - 128)


def image_of(image: Any) -> tuple[Any, ...]:
    return image.width, image.height, image.format, image.bit_depth


def sizes(report: Report) -> list[tuple[Any, ...]]:
    return [(*Image.open(photo).size, "jpeg", 8) for photo in report.photos]


def rerank(report: Report, client: cohere.ClientV2, version_1: cohere.Client) -> None:
    query, texts = "a cat", list(report.texts)
    vectors = report.vectors([query, *texts])
    scores = vectors[1:] @ vectors[0]
    order = np.argsort(-scores).tolist()
    asked: dict[str, Any] = {"model": MODEL, "query": query, "documents": texts}

    results = client.rerank(**asked).results
    report.check("rerank", lambda: [result.index for result in results] == order)
    found = [result.relevance_score for result in results]
    report.check("scores", lambda: bool(np.allclose(found, scores[order], atol=1e-6)))
    results = client.rerank(**asked, top_n=2, max_tokens_per_doc=4096).results
    report.check("top_n", lambda: [result.index for result in results] == order[:2])

    results = version_1.rerank(**asked, return_documents=True).results
    found_texts = [result.document.text for result in results]
    report.check("documents", lambda: found_texts == [texts[index] for index in order])
    documents = [{"text": text, "title": "ignored"} for text in texts]
    results = version_1.rerank(**{**asked, "documents": documents}).results
    report.check("objects", lambda: [result.index for result in results] == order)
    results = client.rerank(
        **{**asked, "query": report.data_uris[0], "documents": report.data_uris}
    ).results
    report.check("images", lambda: results[0].index == 0 and results[0].relevance_score > 0.9999)


def errors(report: Report, client: cohere.ClientV2) -> None:
    def embed(**options: Any) -> Any:
        asked = {"model": MODEL, "input_type": "search_document", **options}
        return client.embed(**asked)

    report.refused(
        "an unknown model",
        cohere.NotFoundError,
        "GET /v1/models",
        lambda: embed(model="embed-v4.0", texts=["a cat"]),
    )
    report.refused(
        "an unknown type",
        cohere.BadRequestError,
        "embedding_types[0]",
        lambda: embed(texts=["a cat"], embedding_types=["float16"]),
    )
    report.refused(
        "an image and a text together",
        cohere.BadRequestError,
        "exactly one part",
        lambda: embed(inputs=[{"content": [{"type": "text", "text": t} for t in "ab"]}]),
    )
    report.refused(
        "a broken image",
        cohere.UnprocessableEntityError,
        "image",
        lambda: embed(images=["data:image/png;base64,iVBORw0KGgo="]),
    )
    report.refused(
        "a forbidden address",
        cohere.ForbiddenError,
        "URL",
        lambda: embed(images=["http://10.0.0.1/cat.jpg"]),
    )
    report.refused(
        "an unknown model for rerank",
        cohere.NotFoundError,
        "GET /v1/models",
        lambda: client.rerank(model="rerank-v3.5", query="a", documents=["b"]),
    )


if __name__ == "__main__":
    run("cohere", main)
