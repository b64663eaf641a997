"""What a model replica asks for depends on whether Ray has a GPU."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from tests.servers import ROOT

# Builds the application in a Ray that claims to have some GPUs; nothing is deployed.
BUILD = """
import json, sys
import ray
from deployments.app import build_app

ray.init(
    address="local",
    num_gpus=int(sys.argv[1]),
    num_cpus=1,
    include_dashboard=False,
    object_store_memory=80 * 1024 * 1024,
    _temp_dir=sys.argv[2],
)
ingress = build_app({})._bound_deployment
embedder = ingress.init_args[1][0]._bound_deployment
for deployment in (ingress, embedder):
    print(json.dumps([deployment.name, deployment.ray_actor_options]))
print(json.dumps(embedder.init_args[1]))
"""


@pytest.mark.timeout(90)
def test_the_model_replica_asks_for_a_gpu_exactly_if_ray_has_one() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    # A short path: Ray's sockets lie in it. Both at once, because a Ray takes seconds to start.
    with tempfile.TemporaryDirectory(prefix="rl-", ignore_cleanup_errors=True) as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", BUILD, gpus, folder],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for gpus in ("1", "0")
        ]
        try:
            answers = [answer(process) for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
                    process.wait(10)
    with_gpu, without_gpu = answers
    assert with_gpu == [
        ["Ingress", {"num_cpus": 0}],
        ["Embedder", {"num_cpus": 1, "num_gpus": 1}],
        "a GPU of the cluster was free",
    ]
    assert without_gpu == [
        ["Ingress", {"num_cpus": 0}],
        ["Embedder", {"num_cpus": 1}],
        "no GPU of the cluster was free when this was deployed",
    ]


def answer(process: subprocess.Popen[str]) -> list[Any]:
    """The process's lines of JSON; Ray itself may print others before them."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()[-3:]]
