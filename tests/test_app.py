"""Where the model goes: the resources that a model replica asks Ray for, and why."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from deployments import app
from deployments.app import place
from deployments.settings import ModelSettings, Settings
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


@pytest.mark.parametrize("gpus", [0.0, 4.0])
def test_a_model_on_the_cpu_asks_for_no_gpu_even_where_there_are_some(gpus: float) -> None:
    assert place(ModelSettings(device="cpu"), gpus) == ({"num_cpus": 1}, "model.device is cpu")


@pytest.mark.parametrize("gpus", [0.0, 4.0])
def test_a_model_on_cuda_asks_for_a_gpu_even_where_there_is_none_yet(gpus: float) -> None:
    options, reason = place(ModelSettings(device="cuda"), gpus)
    assert options == {"num_cpus": 1, "num_gpus": 1}
    assert reason == "model.device is cuda"


@pytest.mark.parametrize("gpus", [1.0, 4.0])
def test_auto_takes_a_gpu_where_the_cluster_has_one(gpus: float) -> None:
    options, reason = place(ModelSettings(device="auto"), gpus)
    assert options == {"num_cpus": 1, "num_gpus": 1}
    assert reason == f"the cluster has {gpus:.0f} GPU(s)"


@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_auto_takes_the_cpu_where_the_cluster_has_no_whole_gpu(gpus: float) -> None:
    options, reason = place(ModelSettings(device="auto"), gpus)
    assert options == {"num_cpus": 1}
    assert reason == "the cluster had no GPU for it when this was deployed"


@pytest.mark.parametrize(
    ("devices", "gpus", "expected"),
    [
        (["auto", "auto"], 2, [1, 1]),
        (["auto", "auto"], 1, [1, 0]),
        (["auto", "cuda"], 1, [0, 1]),
        (["cpu", "auto"], 1, [0, 1]),
    ],
)
def test_models_do_not_count_on_the_same_gpu(
    monkeypatch: pytest.MonkeyPatch, devices: list[Any], gpus: float, expected: list[int]
) -> None:
    monkeypatch.setattr(app, "cluster_gpus", lambda: gpus)
    first, *more = [ModelSettings(id=f"m{i}", device=device) for i, device in enumerate(devices)]
    ingress: Any = app.build_graph(Settings(model=first, models=tuple(more)))._bound_deployment
    embedders = [embedder._bound_deployment for embedder in ingress.init_args[1]]
    assert [e.name for e in embedders] == ["Embedder", "Embedder-m1"]
    assert [e.ray_actor_options.get("num_gpus", 0) for e in embedders] == expected


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
        "the cluster has 1 GPU(s)",
    ]
    assert without_gpu == [
        ["Ingress", {"num_cpus": 0}],
        ["Embedder", {"num_cpus": 1}],
        "the cluster had no GPU for it when this was deployed",
    ]


def answer(process: subprocess.Popen[str]) -> list[Any]:
    """The process's lines of JSON; Ray itself may print others before them."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()[-3:]]
