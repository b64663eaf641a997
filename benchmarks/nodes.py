"""What it costs to send images from one node to another: `python -m benchmarks.nodes`.

Two Ray nodes on this machine, and a handle as the ingress uses it for the model. Pixels, as raylens
sends them, beside JPEGs, which the model's node would have to decode itself.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.photos import jpeg
from deployments.pixels.decode import decode
from deployments.wire import PatchSpec, PixelSpec
from raylens.cluster import scratch_parent, serve_environment

console = Console(width=100)
STACK = 8
DIMENSIONS = 512
# CLIP's pre-processing at two sizes, and NaFlex's. `exact=False`: torch may resize.
SPECS: dict[str, PixelSpec | PatchSpec] = {
    "224 x 224": PixelSpec(("shortest_edge", 224), 3, (224, 224), exact=False),
    "336 x 336": PixelSpec(("shortest_edge", 336), 3, (336, 336), exact=False),
    "NaFlex, 256 patches": PatchSpec(16, 256, 2, exact=False),
}
PHOTOS = {"640 x 480": (640, 480), "12 megapixels": (4000, 3000)}
# Where images cross the network: its bits a second.
LINKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 1e10}


class Model:
    """Takes a stack and answers with vectors, without a model."""

    async def embed(self, stack: Any) -> Any:
        return np.zeros((len(stack), DIMENSIONS), np.float32)

    def cpu_s(self) -> float:
        return time.process_time()


class Caller:
    """The ingress's side, on another node."""

    def __init__(self) -> None:
        from ray import serve

        from deployments.embedder.client import OVER_GRPC

        handle = serve.get_deployment_handle("Model", "nodes")
        self._embed = handle.options(method_name="embed", **OVER_GRPC)
        self._cpu_s = handle.options(method_name="cpu_s", **OVER_GRPC)

    async def measure(self, stack: Any, times: int, at_once: int) -> tuple[float, float]:
        """Milliseconds an image, and of both processes' processor time."""
        for _ in range(20):
            await self._embed.remote(stack)
        cpu_s = time.process_time() + await self._cpu_s.remote()
        began = time.perf_counter()

        async def call() -> None:
            for _ in range(times // at_once):
                await self._embed.remote(stack)

        await asyncio.gather(*(call() for _ in range(at_once)))
        took_s = time.perf_counter() - began
        cpu_s = time.process_time() + await self._cpu_s.remote() - cpu_s
        images = len(stack) * (times // at_once * at_once)
        return 1e3 * took_s / images, 1e3 * cpu_s / images


def decoding_ms(data: bytes, spec: PixelSpec | PatchSpec, times: int) -> float:
    """Processor time of this process for one image."""
    decode(data, spec, max_pixels=10**8)
    began = time.process_time()
    for _ in range(times):
        decode(data, spec, max_pixels=10**8)
    return 1e3 * (time.process_time() - began) / times


def measured(times: int, stacks: dict[str, Any]) -> dict[tuple[str, int], tuple[float, float]]:
    """What `Caller.measure` says of each, alone and four at once, on two nodes of a new Ray."""
    with tempfile.TemporaryDirectory(dir=scratch_parent()) as folder:
        os.environ.update(serve_environment(Path(folder)))
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            for number, name in enumerate(("caller", "model")):
                address = f"127.0.0.{number + 2}"
                cluster.add_node(num_cpus=2, node_ip_address=address, resources={name: 1})
            ray.init(address=cluster.address, log_to_driver=False)
            deployment = serve.deployment(Model, ray_actor_options={"resources": {"model": 1}})
            serve.start(proxy_location="Disabled")
            serve.run(deployment.bind(), name="nodes", route_prefix=None)
            caller = ray.remote(Caller).options(resources={"caller": 1}).remote()
            call: Callable[..., Any] = caller.measure.remote
            return {
                (name, at_once): ray.get(call(stack, times, at_once))
                for name, stack in stacks.items()
                for at_once in (1, 4)
            }
        finally:
            ray.shutdown()
            cluster.shutdown()


def main(times: Annotated[int, typer.Option(help="Calls for each figure.")] = 400) -> None:
    console.print(machine())
    photos = {name: [jpeg(n, *size) for n in range(STACK)] for name, size in PHOTOS.items()}
    stacks: dict[str, Any] = {f"{name} JPEG": data for name, data in photos.items()}
    for name, spec in SPECS.items():
        decoded = [decode(data, spec, max_pixels=10**8).pixels for data in photos["640 x 480"]]
        stacks[name] = np.stack(decoded)
    shown = Table("sent", "KB", "ms alone", "ms, 4 at once", "processor ms", *LINKS)
    found = measured(times, stacks)
    for name, stack in stacks.items():
        size = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in stack) / STACK
        wire = [f"{1e3 * 8 * size / bits:.2f}" for bits in LINKS.values()]
        figures = found[name, 1][0], *found[name, 4]
        shown.add_row(name, f"{size / 1e3:.0f}", *(f"{f:.3f}" for f in figures), *wire)
    console.print(f"Sent in stacks of {STACK}; each figure is for one image.", shown)
    costs = Table("photo", *SPECS, title="Decoding and resizing, processor ms")
    for name, (data, *_) in photos.items():
        many = max(3, times // 20)
        costs.add_row(name, *(f"{decoding_ms(data, spec, many):.1f}" for spec in SPECS.values()))
    console.print(costs)


if __name__ == "__main__":
    typer.run(main)
