"""Under load batches are full, vectors are not mixed up, and nothing leaks."""

import asyncio
import base64
from typing import Any

import httpx
import pytest

from tests.conftest import Jpeg
from tests.load import at_once
from tests.servers import Server, metric

MAX_BATCH_SIZE = 8


async def test_64_callers_each_get_their_own_vector_in_full_batches(
    server: Server, jpeg: Jpeg, metrics_url: str
) -> None:
    images = [jpeg(i, (160, 120)) for i in range(64)]
    alone = [o.body["data"][0]["embedding"] for o in await at_once(server.url, images, callers=1)]
    async with httpx.AsyncClient() as client:
        sum_name = "ray_raylens_batch_items_total"
        count_name = "ray_raylens_batches_total"
        await asyncio.sleep(11)  # the metrics of what went before have been reported
        before = (await client.get(metrics_url)).text
        outcomes = await at_once(server.url, images * 8, callers=64)
        await asyncio.sleep(11)
        after = (await client.get(metrics_url)).text
    assert {o.status for o in outcomes} == {200}
    for number, outcome in enumerate(outcomes):
        got = outcome.body["data"][0]["embedding"]
        assert got == pytest.approx(alone[number % 64], abs=1e-5)
    images_seen = metric(after, sum_name) - metric(before, sum_name)
    batches = metric(after, count_name) - metric(before, count_name)
    assert images_seen == len(outcomes)
    print(f"average batch: {images_seen / batches:.2f} of {MAX_BATCH_SIZE}")
    assert images_seen / batches >= 0.75 * MAX_BATCH_SIZE


async def test_threads_tasks_and_files_stay_flat_over_2000_mixed_requests(
    server: Server, metrics_url: str, files: str, jpeg: Jpeg
) -> None:
    data = base64.b64encode(jpeg(1, (64, 48))).decode()
    bodies: list[Any] = [
        {"input": {"path": "1.jpg"}},
        {"input": {"base64": data}},
        {"input": {"url": f"{files}/2.jpg"}},
        {"input": [{"path": "none.jpg"}, {"base64": data}], "on_error": "report"},
        {"input": {"url": f"{files}/none.jpg"}},
        {"input": {"url": "http://10.0.0.1/a.jpg"}},
        {"input": {"base64": data[:40]}},
        {"input": 7},
        {"nothing": 1},
        {"input": {"base64": data}, "encoding_format": "base64"},
    ]

    async def burst(number: int) -> None:
        turn = asyncio.Semaphore(16)
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:

            async def one(body: Any) -> None:
                async with turn:
                    response = await client.post(f"{server.url}/v1/embeddings", json=body)
                    assert response.status_code < 500, response.text

            await asyncio.gather(*(one(bodies[i % len(bodies)]) for i in range(number)))

    async def counts() -> dict[str, float]:
        await asyncio.sleep(16)  # idle connections close; a health check and a report later
        async with httpx.AsyncClient() as client:
            text = (await client.get(metrics_url)).text
        found = {
            f"{deployment} {name}": metric(text, f"ray_raylens_{name}", deployment=deployment)
            for deployment in ("Ingress", "Embedder")
            for name in ("threads", "python_threads", "tasks", "open_files")
        }
        for deployment in ("Ingress", "Embedder"):
            (process,) = server.replicas(deployment)
            assert found[f"{deployment} threads"] == pytest.approx(process.num_threads(), abs=2)
        return found

    await burst(200)  # the pools fill
    before = await counts()
    await burst(2000)
    after = await counts()
    print(f"before {before}\nafter 2,000 requests {after}")
    for name, value in before.items():
        assert value > 0
        assert after[name] <= value + 4
