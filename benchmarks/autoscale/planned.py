"""`raylens plan` beside a real service of 1, 2 and 3 replicas: images/s, and p99 at two loads.

The profile is measured with one replica, as `raylens bench --profile` does. The model sleeps
(`stub`), so two processors are enough for three replicas.

    python -m benchmarks.autoscale.planned
"""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import yaml

from raylens import bench
from raylens.plan import Profile, predicted_p99_s
from tests.servers import ROOT, serve

# 23 images/s with one replica: with three, two processors are not the limit.
SLEEPS = {"batch_s": 0.1, "image_s": 0.03}
MAX_BATCH_SIZE = 8
REPLICAS = (1, 2, 3)
BUSY = (0.5, 0.8)
SECONDS = 30.0


def config(replicas: int) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = content["applications"]
    application["import_path"] = "benchmarks.autoscale.stub:build_app"
    application["args"] = {
        "sleeps": SLEEPS,
        "model": {"max_batch_size": MAX_BATCH_SIZE},
        "cache": {"max_bytes": 0},
    }
    for deployment in application["deployments"]:
        if deployment["name"] == "Embedder":
            deployment |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.25}}
    return content


def measured_profile(url: str, images: list[bytes]) -> Profile:
    """What `raylens bench --profile` would write and `raylens plan` read."""

    async def runs() -> list[bench.Run]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            return [
                await bench.measure(client, load, 10, images)
                for load in (bench.Load(1, 1), bench.Load(16, 1), bench.Load(64, 1))
            ]

    return Profile.of(
        {
            "model": {"device": "cpu"},
            "replicas": 1,
            "cpus": os.cpu_count(),
            "runs": [run.as_json() for run in asyncio.run(runs())],
        }
    )


def most_images_per_s(url: str, images: list[bytes], callers: int) -> float:
    async def run() -> bench.Run:
        limits = httpx.Limits(max_connections=callers)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            await bench.measure(client, bench.Load(callers, 1), 2, images)
            return await bench.measure(client, bench.Load(callers, 1), 10, images)

    return asyncio.run(run()).images_per_s


async def latencies(url: str, rate: float, images: Iterator[bytes]) -> list[float]:
    """Of requests that come by chance at this rate, whoever still waits, in seconds."""
    random = np.random.default_rng(0)
    took: list[float] = []

    async def one(session: aiohttp.ClientSession, image: bytes, due: float) -> None:
        headers = {"Content-Type": "image/jpeg", "Accept": "application/x-npy"}
        async with session.post(f"{url}/v1/embeddings", data=image, headers=headers) as response:
            response.raise_for_status()
            await response.read()
        took.append(time.monotonic() - due)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        began = time.monotonic()
        for at in itertools.accumulate(random.exponential(1 / rate, int(rate * SECONDS))):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(one(session, next(images), began + at))
    return took[len(took) // 10 :]


def main() -> None:
    images = bench.photos(8, (64, 48))  # small ones: the ingress is not what is looked at
    profile: Profile | None = None
    for replicas in REPLICAS:
        with tempfile.TemporaryDirectory(prefix="raylens-") as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(yaml.safe_dump(config(replicas)))
            with serve(Path(folder), path, env={"PYTHONPATH": str(ROOT)}) as server:
                time.sleep(5)  # HAProxy has the replicas by then
                if profile is None:
                    profile = measured_profile(server.url, images)
                    print(profile)
                    print(f"{'replicas':>8}  {'':18} {'measured':>9} {'planned':>9}")
                print_row(
                    replicas,
                    "images/s",
                    most_images_per_s(server.url, images, 32 * replicas),
                    replicas * profile.images_per_s,
                )
                for busy in BUSY:
                    rate = busy * replicas * profile.images_per_s
                    took = asyncio.run(latencies(server.url, rate, bench.numbered(images)))
                    print_row(
                        replicas,
                        f"p99, ms, {busy:.0%} busy",
                        1e3 * float(np.percentile(took, 99)),
                        1e3 * predicted_p99_s(profile, replicas, rate),
                    )


def print_row(replicas: int, name: str, measured: float, planned: float) -> None:
    apart = 100 * (planned / measured - 1)
    print(f"{replicas:8}  {name:18} {measured:9.1f} {planned:9.1f} {apart:+5.0f} %", flush=True)


if __name__ == "__main__":
    main()
