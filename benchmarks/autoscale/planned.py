"""`raylens plan` beside a real service of 1, 2 and 3 replicas: images/s, and p99 at two loads.

The profile is measured with one replica, as `raylens bench --profile` does. The model sleeps
(`stub`), so two processors are enough for three replicas.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import httpx

from benchmarks.autoscale.service import serving
from benchmarks.load import Requests, open_loop, run_loop
from raylens import bench
from raylens.client.connections import Connections
from raylens.plan import Profile, predicted_p99_s

# 23 images/s with one replica: with three, two processors are not the limit.
MODEL: Any = {"batch_s": 0.1, "image_s": 0.03, "max_batch_size": 8}
REPLICAS = (1, 2, 3)
MORE_REPLICAS = (10, 100)  # planned alone
BUSY = (0.5, 0.8)
SECONDS = 60.0


def measured(url: str, loads: Sequence[bench.Load], images: Sequence[bytes]) -> list[bench.Run]:
    async def run() -> list[bench.Run]:
        most = max(load.callers for load in loads)
        connections = Connections(most, base_url=url, timeout=60, trust_env=False)
        async with aclosing(connections):
            return await bench.measure(connections, loads, 10, images)

    return asyncio.run(run())


def measured_profile(url: str, images: Sequence[bytes]) -> Profile:
    """What `raylens bench --profile` would write and `raylens plan` read."""
    model = httpx.get(f"{url}/v1/models").raise_for_status().json()["data"][0]
    loads = [load for load in bench.LOADS if load.images == 1]
    return Profile.of(bench.profile(model, measured(url, loads, images), replicas=1))


def measured_p99_s(url: str, rate: float, images: Sequence[bytes]) -> float:
    """In seconds, of `rate` requests a second that arrive at random."""
    headers = {"Content-Type": "image/jpeg", "Accept": "application/x-npy"}
    requests = Requests(f"{url}/v1/embeddings", images, 1, headers)
    run = run_loop(open_loop, requests, per_second=rate, seconds=SECONDS, warm_up_s=10)
    if run.errors:
        raise RuntimeError(f"requests failed: {dict(run.errors)}")
    return run.percentile(99) / 1e3


def main() -> None:
    images = bench.photos(8, (64, 48))  # small ones: the ingress is not what is looked at
    with serving(**MODEL, embedder={"num_replicas": 1}) as server:
        profile = measured_profile(server.url, images)
    print(profile)
    print(f"{'replicas':>8}  {'':18} {'measured':>9} {'planned':>9}")
    for replicas in REPLICAS:
        with serving(**MODEL, embedder={"num_replicas": replicas}) as server:
            (most,) = measured(server.url, [bench.Load(32 * replicas, 1)], images)
            print_row(replicas, "images/s", most.images_per_s, replicas * profile.images_per_s)
            for busy in BUSY:
                rate = busy * replicas * profile.images_per_s
                p99_ms = 1e3 * measured_p99_s(server.url, rate, images)
                planned_ms = 1e3 * predicted_p99_s(
                    profile, replicas, ingresses=1, requests_per_s=rate
                )
                print_row(replicas, f"p99, ms, {busy:.0%} busy", p99_ms, planned_ms)
    for replicas in MORE_REPLICAS:
        most_per_s = replicas * profile.images_per_s
        print_row(replicas, "images/s", None, most_per_s)
        for busy in BUSY:
            rate = busy * most_per_s
            planned_ms = 1e3 * predicted_p99_s(
                profile, replicas, ingresses=profile.ingresses(rate), requests_per_s=rate
            )
            print_row(replicas, f"p99, ms, {busy:.0%} busy", None, planned_ms)


def print_row(replicas: int, name: str, measured: float | None, planned: float) -> None:
    found = f"{'':9} {planned:9.1f}"
    if measured is not None:
        found = f"{measured:9.1f} {planned:9.1f} {100 * (planned / measured - 1):+5.0f} %"
    print(f"{replicas:8}  {name:18} {found}", flush=True)
