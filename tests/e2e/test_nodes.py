"""One service over the nodes of a Ray cluster: two ingress and three model replicas."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from benchmarks.photos import jpeg
from raylens.cluster import free_port
from tests.chaos.__main__ import write_config
from tests.chaos.nodes import Nodes, is_full, is_ready, nodes, processes, replicas
from tests.load import at_once
from tests.servers import RAYLENS, ROOT
from tests.until import until

WORKERS = ({"model": 2, "ingress": 1}, {"model": 1, "ingress": 1})


def test_all_replicas_on_all_nodes_answer_alike(tmp_path: Path) -> None:
    # In a process of its own: Ray looks only once in a process whether it takes tokens.
    subprocess.run([sys.executable, "-m", "tests.e2e.test_nodes", tmp_path], cwd=ROOT, check=True)


async def all_replicas_on_all_nodes_answer_alike(folder: Path) -> None:
    """Behind the head's HAProxy, and then, deployed by Serve's own command, behind every node's."""
    config = write_config(folder)
    images = [jpeg(seed) for seed in range(8)]
    with nodes(config, WORKERS) as service:
        await assert_all_answer(service, images, with_haproxy=[True, False, False])
        serve(service, "shutdown", "--yes")
        port = free_port()
        change(config, proxies="EveryNode", port=port)
        serve(service, "deploy", str(config))
        service.url = f"http://127.0.0.1:{port}"
        until(lambda: all(is_ready(service.url) for _ in range(20)))
        await assert_all_answer(service, images, with_haproxy=[True, True, True])


async def assert_all_answer(
    service: Nodes, images: Sequence[bytes], with_haproxy: list[bool]
) -> None:
    head, *workers = service.running
    until(lambda: all(map(is_full, workers, WORKERS)))
    until(lambda: [bool(haproxies(node)) for node in service.running] == with_haproxy)
    models = [p for worker in workers for p in replicas(worker, "Embedder")]
    before = [p.cpu_times().user for p in models]
    outcomes = await at_once(service.url, [*images] * 15, callers=12)
    took_s = [p.cpu_times().user - b for p, b in zip(models, before, strict=True)]
    assert {o.status for o in outcomes} == {200}
    assert not replicas(head, "Embedder")
    assert len(took_s) == 3
    assert min(took_s) > 0.1, f"a model replica had nothing to do: {took_s}"
    vectors = np.array([o.body["data"][0]["embedding"] for o in outcomes], np.float32)
    same = vectors.reshape(15, len(images), -1)
    assert np.abs(same - same[0]).max() < 1e-4


def haproxies(node: Any) -> list[psutil.Process]:
    return [process for process in processes(node) if process.name() == "haproxy"]


def change(config: Path, *, proxies: str, port: int) -> None:
    content = yaml.safe_load(config.read_text())
    content["proxy_location"] = proxies
    content["http_options"]["port"] = port
    config.write_text(yaml.safe_dump(content))


def serve(service: Nodes, command: str, *arguments: str) -> None:
    dashboard = f"http://{service.cluster.webui_url}"
    serve = RAYLENS.parent / "serve"
    subprocess.run([serve, command, "--address", dashboard, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    asyncio.run(all_replicas_on_all_nodes_answer_alike(Path(sys.argv[1])))
