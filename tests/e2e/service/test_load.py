"""Under load images share batches, vectors are not mixed up, and nothing leaks."""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from raylens.client.connections import Connections
from tests.conftest import Jpeg
from tests.load import at_once
from tests.servers import Server, metric

Counts = dict[str, float]
# Longer than the time between a health check, which updates the gauges, and their report.
QUIET_S = 4


async def test_64_callers_each_get_their_own_vector_in_batches_of_several(
    server: Server, jpeg: Jpeg, metrics_url: str
) -> None:
    images = [jpeg(i, (160, 120)) for i in range(64)]
    alone = [o.body["data"][0]["embedding"] for o in await at_once(server.url, images, callers=1)]
    before = await settled(metrics_url, batch_counts)
    outcomes = await at_once(server.url, images * 8, callers=64)
    after = await settled(metrics_url, batch_counts)
    assert {o.status for o in outcomes} == {200}
    for number, outcome in enumerate(outcomes):
        got = outcome.body["data"][0]["embedding"]
        assert got == pytest.approx(alone[number % 64], abs=1e-5)
    items, batches = (after[name] - before[name] for name in ("items", "batches"))
    print(f"{batches:.0f} batches of {items / batches:.2f} on average")
    assert items == len(outcomes)
    # How full they are depends on how busy the processors are: that is for the benchmark to say.
    assert batches < items


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
        connections = Connections(16, base_url=server.url, timeout=60, trust_env=False)

        async def one(body: Any) -> None:
            async with connections.one() as connection:
                response = await connection.post("/v1/embeddings", json=body)
            assert response.status_code < 500, response.text

        async with aclosing(connections):
            await asyncio.gather(*(one(bodies[i % len(bodies)]) for i in range(number)))

    def counts(text: str) -> Counts:
        found = {}
        for deployment in ("Ingress", "Embedder"):
            (process,) = server.replicas(deployment)
            for name in ("threads", "python_threads", "tasks", "open_files"):
                value = metric(text, f"ray_raylens_{name}", deployment=deployment)
                found[f"{deployment} {name}"] = value
            assert found[f"{deployment} threads"] == pytest.approx(process.num_threads(), abs=2)
        return found

    await burst(200)  # the pools fill
    before = await settled(metrics_url, counts)
    await burst(2000)
    after = await settled(metrics_url, counts)
    print(f"before {before}\nafter 2,000 requests {after}")
    for name, value in before.items():
        assert value > 0
        assert after[name] <= value + 4


def batch_counts(text: str) -> Counts:
    return {
        name: metric(text, f"ray_raylens_batch_size_{part}")
        for name, part in (("items", "sum"), ("batches", "count"))
    }


async def settled(metrics_url: str, read: Callable[[str], Counts]) -> Counts:
    """What `read` finds in the metrics once they stand still: everything counted has been reported,
    and pools have closed what was idle."""
    deadline = time.monotonic() + 60
    settling: Counts = {}
    since = 0.0
    async with httpx.AsyncClient() as client:
        while True:
            found = read((await client.get(metrics_url)).text)
            if not settling or any(abs(found[k] - settling[k]) > 1 for k in found):
                settling, since = found, time.monotonic()
            elif time.monotonic() - since > QUIET_S:
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)
