"""One service over the nodes of a Ray cluster: two ingress and three model replicas."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from raylens.cluster import free_port
from tests.chaos.__main__ import write_config
from tests.chaos.nodes import Deploy, deployed, is_full, is_ready, nodes, processes, replicas
from tests.load import at_once
from tests.servers import RAYLENS, ROOT
from tests.until import until

WORKERS = ({"model": 2, "ingress": 1}, {"model": 1, "ingress": 1})


def serve_deploy(config: Path, log: Path, cluster: Any) -> str:
    """As an operator does it with Serve's own command; returns the service's URL."""
    content = yaml.safe_load(config.read_text())
    port = content["http_options"]["port"] = free_port()
    config.write_text(yaml.safe_dump(content))
    dashboard = f"http://{cluster.webui_url}"
    command = [RAYLENS.parent / "serve", "deploy", "--address", dashboard, config]
    subprocess.run(command, cwd=ROOT, check=True)
    url = f"http://127.0.0.1:{port}"
    until(lambda: is_ready(url), within_s=120)
    return url


def haproxies(node: Any) -> list[psutil.Process]:
    return [process for process in processes(node) if process.name() == "haproxy"]


@pytest.mark.parametrize(
    ("proxies", "deploy", "with_haproxy"),
    [
        ("HeadOnly", deployed, [True, False, False]),
        ("EveryNode", serve_deploy, [True, True, True]),
    ],
    ids=["head only, raylens serve", "every node, serve deploy"],
)
async def test_all_replicas_on_all_nodes_answer_alike(
    tmp_path: Path,
    jpeg: Callable[..., bytes],
    proxies: str,
    deploy: Deploy,
    with_haproxy: list[bool],
) -> None:
    config = write_config(tmp_path)
    images = [jpeg(seed, (320, 240)) for seed in range(8)]
    with nodes(config, WORKERS, proxies=proxies, deploy=deploy) as service:
        head, *workers = service.running
        until(lambda: all(map(is_full, workers, WORKERS)))
        until(lambda: [bool(haproxies(node)) for node in service.running] == with_haproxy)
        models = [p for worker in workers for p in replicas(worker, "Embedder")]
        before = [p.cpu_times().user for p in models]
        outcomes = await at_once(service.url, images * 15, callers=12)
        took = [p.cpu_times().user - b for p, b in zip(models, before, strict=True)]
    assert not replicas(head, "Embedder")
    assert {o.status for o in outcomes} == {200}
    assert len(took) == 3
    assert min(took) > 0.1, f"a model replica had nothing to do: {took}"
    vectors = np.array([o.body["data"][0]["embedding"] for o in outcomes], np.float32)
    same = vectors.reshape(15, len(images), -1)
    assert np.abs(same - same[0]).max() < 1e-4
