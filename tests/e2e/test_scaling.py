"""Deployments that follow the load, and a model that sleeps while nobody calls."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import Jpeg
from tests.load import at_once
from tests.servers import ROOT, Server, serve
from tests.until import until

(CLUSTER,) = yaml.safe_load((ROOT / "configs" / "cpu-cluster.yaml").read_text())["applications"]
SCALING = {d["name"]: d["autoscaling_config"] for d in CLUSTER["deployments"]}


def written(folder: Path, cold_start: str, ingress: dict[str, Any], **policy: float) -> Path:
    """The default config with the policies of configs/cpu-cluster.yaml. `policy` has options of the
    model's policy, and `ingress` overrides the ingress deployment's."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = config["applications"]
    application["args"]["model"] |= {"threads": 1, "cold_start": cold_start}
    application["args"]["cache"] = {"max_bytes": 0}
    deployments = {deployment["name"]: deployment for deployment in application["deployments"]}
    deployments["Ingress"] |= ingress
    embedder = deployments["Embedder"]
    scaling = SCALING["Embedder"] | {"min_replicas": 0, "max_replicas": 2}
    scaling["policy"] = scaling["policy"] | {"policy_kwargs": policy}
    embedder["autoscaling_config"] = scaling
    embedder["ray_actor_options"] = {"num_cpus": 0.25}
    for deployment in deployments.values():
        if "autoscaling_config" in deployment:
            deployment.pop("num_replicas", None)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def grows(server: Server, deployment: str, images: list[bytes]) -> None:
    """Sends load until there is a second replica, for a minute at most. All must be answered."""
    deadline = time.monotonic() + 60
    while len(server.replicas(deployment)) < 2:
        assert time.monotonic() < deadline, f"no second replica of {deployment} under load"
        assert statuses(server, images) == {200}


def statuses(server: Server, images: list[bytes]) -> set[int]:
    return {outcome.status for outcome in asyncio.run(at_once(server.url, images, callers=8))}


def test_a_model_sleeps_wakes_up_and_grows(tmp_path: Path, jpeg: Jpeg) -> None:
    path = written(tmp_path, "wait", {}, idle_after_s=4, utilisation=0.3)
    images = [jpeg(i, (64, 64)) for i in range(32)]
    with serve(tmp_path, path) as server:
        until(lambda: not server.replicas("Embedder"), within_s=60)
        for _ in range(4):  # over more than one interval of reports
            assert httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
            time.sleep(0.5)
        assert not server.replicas("Embedder")
        assert statuses(server, images[:1]) == {200}
        grows(server, "Embedder", images)


def test_the_ingress_grows_and_a_sleeping_model_refuses_at_first(
    tmp_path: Path, jpeg: Jpeg
) -> None:
    scaling = SCALING["Ingress"] | {"min_replicas": 1, "max_replicas": 2}
    # A quarter of a processor, which decoding soon keeps busy.
    ingress = {"autoscaling_config": scaling, "ray_actor_options": {"num_cpus": 0.25}}
    path = written(tmp_path, "refuse", ingress, idle_after_s=4)
    images = [jpeg(i, (640, 480)) for i in range(32)]
    with serve(tmp_path, path) as server:
        until(lambda: not server.replicas("Embedder"), within_s=60)
        (first,) = asyncio.run(at_once(server.url, images[:1], callers=1))
        assert first.status == 503
        assert "has been idle" in first.body["error"]["message"]
        until(lambda: statuses(server, images[:1]) == {200}, within_s=60)
        grows(server, "Ingress", images)
