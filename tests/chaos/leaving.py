"""Nodes that leave a cluster: the head is lost, or a cloud takes a node back after a warning."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.nodes import is_full, nodes, redis, replicas, seen
from tests.chaos.traffic import Traffic
from tests.until import until

# Few: new nodes, which take a processor each while they start, are on this machine too.
PER_SECOND = 5
# Between a cloud's warning and the end of the node; AWS gives two minutes, GCP and Azure 30 s.
WARNING_S = 30
BOTH = {"model": 1, "ingress": 1}


class NewConnections(Traffic):
    """A connection for each request, so that a load balancer can send each one elsewhere."""

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0, force_close=True)


def head_lost(config: Path, images: Sequence[bytes]) -> dict[str, Any]:
    """The head is lost with its GCS, whose state is in Redis, and Serve's controller; a new one
    takes its place after 15 s. Then a model replica is killed, which the new head has to replace.
    Requests that were going through the HAProxy of the head fail, and those that the new one gets
    before it knows the replicas: the kernel, which shares them out, does not ask /-/healthz."""
    with tempfile.TemporaryDirectory() as folder, redis(Path(folder)) as address:
        env = {"RAY_REDIS_ADDRESS": address, "RAY_external_storage_namespace": "raylens"}
        with nodes(config, [BOTH, BOTH], env, proxies="EveryNode") as service:
            port = int(service.cluster.address.rpartition(":")[2])
            with NewConnections(service.url, images, PER_SECOND) as traffic:
                time.sleep(5)
                service.lose(0)
                time.sleep(15)
                service.add_head(port)
                time.sleep(20)
                (victim,) = replicas(service.running[1], "Embedder")
                victim.kill()
                victim.wait(10)
                until(lambda: is_full(service.running[1], BOTH), within_s=60)
                time.sleep(5)
    return {"fault": "head lost and replaced", **seen(traffic), "most_failed": 3}


def taken_back(config: Path, images: Sequence[bytes]) -> dict[str, Any]:
    """One of two workers is to be taken back: `ray drain-node` says so. Another node is added, as
    an autoscaler would; the first one is killed when the warning's time is up."""
    with (
        nodes(config, [BOTH, BOTH]) as service,
        NewConnections(service.url, images, PER_SECOND) as traffic,
    ):
        time.sleep(3)
        drain(service.cluster.address, service.running[1].node_id)
        began = time.monotonic()
        service.add(BOTH, num_cpus=4)
        until(lambda: is_full(service.running[-1], BOTH), within_s=WARNING_S)
        took_s = time.monotonic() - began
        time.sleep(max(0, WARNING_S - took_s))
        left = len(replicas(service.running[1], "Embedder"))
        service.lose(1)
        time.sleep(10)
    moved = {"moved_s": round(took_s, 1), "left": left}
    return {"fault": "node taken back after a warning", **seen(traffic), **moved}


def drain(address: str, node_id: str) -> None:
    subprocess.run(
        [
            *(Path(sys.executable).parent / "ray", "drain-node", "--address", address),
            *("--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "taken back", "--deadline-remaining-seconds", str(WARNING_S)),
        ],
        check=True,
    )
