"""A Ray of several nodes on this machine: one of them is lost, or the head's GCS dies."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from raylens.cluster import free_port, scratch_parent, serve_environment
from tests.chaos.faults import SkippedError
from tests.chaos.traffic import Traffic
from tests.servers import RAYLENS, ROOT, Server
from tests.until import until

PER_SECOND = 10
# Ray's custom resource of which a replica takes one, so that a node has room for so many.
ROOM = {"Ingress": "ingress", "Embedder": "model"}
Room = Mapping[str, int]
# Lets several HAProxies listen on one port; Serve's default is one alone.
SHARED_PORT = {"SERVE_SOCKET_REUSE_PORT_ENABLED": "1"}


@dataclass
class Nodes:
    """The nodes, each with a loopback address of its own, and the service's URL."""

    cluster: Any
    running: list[Any] = field(default_factory=list)
    url: str = ""

    def add(self, room: Room, **options: Any) -> None:
        address = f"127.0.0.{len(self.running) + 2}"
        node = self.cluster.add_node(resources=dict(room), node_ip_address=address, **options)
        self.running.append(node)

    def add_head(self, gcs_port: int) -> None:
        """The first node, which has room for no replica; also a new one in place of a lost one."""
        node = self.cluster.add_node(
            num_cpus=0,
            node_ip_address="127.0.0.2",
            gcs_server_port=gcs_port,
            include_dashboard=True,
            dashboard_port=free_port(),
        )
        self.running.insert(0, node)

    def lose(self, number: int = -1) -> None:
        """Kills all processes of a node at once."""
        node = self.running.pop(number)
        for process in processes(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.remove_node(node, allow_graceful=False)


def processes(node: Any) -> list[psutil.Process]:
    """All processes of a node."""
    started = [psutil.Process(popen.pid) for _, popen in node.live_processes()]
    return [*started, *(child for p in started for child in p.children(recursive=True))]


def replicas(node: Any, deployment: str) -> list[psutil.Process]:
    found = []
    for process in processes(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            if f"ServeReplica:raylens:{deployment}" in " ".join(process.cmdline()):
                found.append(process)
    return found


def is_full(node: Any, room: Room) -> bool:
    return all(len(replicas(node, name)) == room.get(of, 0) for name, of in ROOM.items())


@contextlib.contextmanager
def nodes(
    config: Path,
    workers: Sequence[Room],
    env: Mapping[str, str] | None = None,
    *,
    proxies: str = "HeadOnly",
) -> Iterator[Nodes]:
    """The service on a head, which has room for no replica, and `workers`, whose rooms are all
    taken. With `proxies` on EveryNode, the kernel shares out connections to the one port among
    the HAProxies of all nodes, as a load balancer would."""
    content = yaml.safe_load(config.read_text())
    content["proxy_location"] = proxies
    content["http_options"]["host"] = "0.0.0.0"  # replicas on all nodes are reached
    for deployment in content["applications"][0]["deployments"]:
        room = ROOM[deployment["name"]]
        options = {"num_cpus": 1, "resources": {room: 1}}
        number = sum(worker.get(room, 0) for worker in workers)
        deployment |= {"num_replicas": number, "ray_actor_options": options}
    config.write_text(yaml.safe_dump(content))
    before = dict(os.environ)
    with (
        tempfile.TemporaryDirectory(dir=scratch_parent()) as folder,
        contextlib.ExitStack() as cleanup,
    ):
        cleanup.callback(os.environ.update, before)
        cleanup.callback(os.environ.clear)
        os.environ.update({**serve_environment(Path(folder)), **SHARED_PORT, **(env or {})})
        from ray.cluster_utils import Cluster

        found = Nodes(Cluster())
        cleanup.callback(found.cluster.shutdown)
        found.add_head(free_port())
        for worker in workers:
            found.add(worker, num_cpus=4)
        found.url = deployed(config, Path(folder) / "log", found.cluster.address)
        # Each time through a HAProxy that the kernel picks: by then all of them know the replicas.
        until(lambda: all(is_ready(found.url) for _ in range(20)))
        yield found


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def deployed(config: Path, log: Path, address: str) -> str:
    """Deploys to the Ray at `address`; returns the service's URL."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [RAYLENS, "serve", config, "--port", str(port), "--address", address],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        server = Server(process, port, log)
        server.wait_until_ready()
    finally:
        process.terminate()  # which leaves the service running
        process.wait(60)
    return server.url


def node_lost(config: Path, images: Sequence[bytes], *, lost: Room) -> dict[str, Any]:
    """One of two workers is lost and comes back, three times. The other one has the replicas that
    are not on it."""
    kept = {room: 2 - lost.get(room, 0) for room in ROOM.values()}
    with (
        nodes(config, [kept, lost]) as service,
        Traffic(service.url, images, PER_SECOND) as traffic,
    ):
        for _ in range(3):
            until(lambda: is_full(service.running[-1], lost))
            time.sleep(5)
            service.lose()
            time.sleep(10)
            service.add(lost, num_cpus=4)
        until(lambda: is_full(service.running[-1], lost))
    return {"fault": f"node lost with replica of {' and '.join(lost)}, 3 times", **seen(traffic)}


def gcs_restarted(config: Path, images: Sequence[bytes]) -> dict[str, Any]:
    """The head's GCS, which keeps its state in Redis, is killed and starts again after 10 s; then a
    model replica is killed, which it has to replace."""
    with tempfile.TemporaryDirectory() as folder, redis(Path(folder)) as address:
        env = {"RAY_REDIS_ADDRESS": address, "RAY_external_storage_namespace": "raylens"}
        with nodes(config, [{"model": 2, "ingress": 2}], env) as service:
            head, worker = service.running
            with Traffic(service.url, images, PER_SECOND) as traffic:
                time.sleep(3)
                head.kill_gcs_server(check_alive=False)
                time.sleep(10)
                head.start_gcs_server()
                time.sleep(10)
                victim, _ = replicas(worker, "Embedder")
                victim.kill()
                victim.wait(10)
                until(lambda: len(replicas(worker, "Embedder")) == 2)
                time.sleep(5)
    return {"fault": "head's GCS restarted", **seen(traffic)}


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The address of one; raises SkippedError if it is not installed."""
    if shutil.which("redis-server") is None:
        raise SkippedError("the GCS keeps its state in Redis: install redis-server")
    port = free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def seen(traffic: Traffic) -> dict[str, Any]:
    return {
        "sent": len(traffic.outcomes),
        "failed": traffic.failed,
        "gap_s": round(traffic.longest_gap_s(), 2),
        "most_gap_s": 3,
        "p99_s": round(traffic.p99_s(), 2),
    }
