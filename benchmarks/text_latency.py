"""How long a text takes while 64 callers send images: `python -m benchmarks.text_latency URL`.

Needs a service that runs and has a text tower. The images come from a process of their own, so
that sending them does not slow the clock of the texts. Knows nothing of the service's inside.
"""

import asyncio
import itertools
import multiprocessing
import re
import statistics
import time
from contextlib import aclosing
from multiprocessing.synchronize import Event
from typing import Annotated

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.photos import jpeg, variant
from raylens.client.connections import Connections

IMAGE_CALLERS = 64
WARM_UP_S = 5.0

console = Console(width=100)


async def send_images(url: str, stop: Event) -> list[float]:
    """64 callers, one image a request, until told to stop; how long the model took, in ms."""
    batches: list[float] = []

    async def caller(connections: Connections) -> None:
        headers = {"Content-Type": "image/jpeg"}
        async with connections.one() as connection:
            while not stop.is_set():
                number = next(numbers)
                data = variant(photos[number % len(photos)], number)
                response = await connection.post("/v1/embeddings", content=data, headers=headers)
                response.raise_for_status()
                took = re.search(r"model;dur=([\d.]+)", response.headers["server-timing"])
                batches.append(float(took[1]) if took else 0.0)

    photos = [jpeg(seed) for seed in range(16)]
    numbers = itertools.count(time.time_ns())  # new ones, also to a cache that saw an earlier run
    connections = Connections(IMAGE_CALLERS, base_url=url, timeout=60, trust_env=False)
    async with aclosing(connections):
        await asyncio.gather(*(caller(connections) for _ in range(IMAGE_CALLERS)))
    return batches


def image_load(url: str, stop: Event, results: "multiprocessing.Queue[list[float]]") -> None:
    results.put(asyncio.run(send_images(url, stop)))


def query(url: str, number: int, run: str) -> list[float]:
    """The time of each of `number` different texts, one after the other, in ms."""
    times = []
    with httpx.Client(timeout=60) as client:
        for i in range(number):
            began = time.perf_counter()
            body = {"input": f"{run}: a photo of {i} cats on a sofa"}
            client.post(f"{url}/v1/embeddings", json=body).raise_for_status()
            times.append((time.perf_counter() - began) * 1e3)
    return times


def main(
    url: Annotated[str, typer.Argument()] = "http://127.0.0.1:8000",
    queries: Annotated[int, typer.Option(help="Texts in each of the two runs.")] = 200,
) -> None:
    """Prints the latency of text queries, idle and under images, and the bound it should keep."""
    run = time.time_ns() % 10_000  # so that a cache does not know the texts from an earlier run
    query(url, 20, f"warm-up {run}")
    idle = query(url, queries, f"idle {run}")
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    load = context.Process(target=image_load, args=(url, stop, results))
    load.start()
    time.sleep(WARM_UP_S)
    began = time.perf_counter()
    busy = query(url, queries, f"busy {run}")
    seconds = time.perf_counter() - began
    stop.set()
    batches = results.get(timeout=120)
    load.join()
    table = Table("text query", "p50 ms", "p95 ms", "p99 ms", title="Text beside 64 image callers")
    for name, times in (("idle", idle), ("64 images in flight", busy)):
        p50, p95, p99 = np.percentile(times, (50, 95, 99))
        table.add_row(name, f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}")
    console.print(table)
    batch = statistics.median(batches)
    bound = 2 * statistics.median(idle) + batch
    kept = "kept" if statistics.median(busy) <= bound else "NOT kept"
    rate = len(batches) / (seconds + WARM_UP_S)
    console.print(
        f"One batch of images: {batch:.0f} ms (median), {rate:.0f} images/s meanwhile. "
        f"Bound, twice the idle p50 and a batch: {bound:.0f} ms, {kept}."
    )


if __name__ == "__main__":
    typer.run(main)
