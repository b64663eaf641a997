"""A model that sleeps while nobody calls, wakes up for the first caller, and gets a second replica
under load."""

import asyncio
import time
from pathlib import Path

import httpx
import yaml

from tests.conftest import Jpeg
from tests.load import at_once
from tests.servers import ROOT, serve
from tests.until import until


def test_a_model_sleeps_wakes_up_and_grows(tmp_path: Path, jpeg: Jpeg) -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = config["applications"]
    application["args"]["model"] |= {"threads": 1, "cold_start": "wait"}
    application["args"]["cache"] = {"max_bytes": 0}
    (embedder,) = (d for d in application["deployments"] if d["name"] == "Embedder")
    del embedder["num_replicas"]
    cluster = yaml.safe_load((ROOT / "configs" / "cpu-cluster.yaml").read_text())
    scaling = cluster["applications"][0]["deployments"][1]["autoscaling_config"]
    scaling |= {"min_replicas": 0, "max_replicas": 2}
    scaling["policy"]["policy_kwargs"] = {"idle_after_s": 4, "utilisation": 0.3}
    embedder["autoscaling_config"] = scaling
    embedder["ray_actor_options"] = {"num_cpus": 0.25}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    images = [jpeg(i, (64, 64)) for i in range(32)]
    with serve(tmp_path, path) as server:
        until(lambda: not server.replicas("Embedder"), within_s=60)
        for _ in range(4):  # over more than one interval of reports
            assert httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
            time.sleep(0.5)
        assert not server.replicas("Embedder")
        (first,) = asyncio.run(at_once(server.url, images[:1], callers=1))
        assert first.status == 200
        deadline = time.monotonic() + 60
        while len(server.replicas("Embedder")) < 2:
            assert time.monotonic() < deadline, "no second replica under load"
            outcomes = asyncio.run(at_once(server.url, images, callers=8))
            assert {outcome.status for outcome in outcomes} == {200}
