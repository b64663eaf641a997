"""Where the model goes: the resources that a model replica asks Ray for, and why."""

from typing import Any

import pytest

from deployments import app
from deployments.app import place
from deployments.settings import ModelSettings, Settings


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
    assert reason == "a GPU of the cluster was free"


@pytest.mark.parametrize("gpus", [0.0, 0.5])
def test_auto_takes_the_cpu_where_the_cluster_has_no_whole_gpu(gpus: float) -> None:
    options, reason = place(ModelSettings(device="auto"), gpus)
    assert options == {"num_cpus": 1}
    assert reason == "no GPU of the cluster was free when this was deployed"


@pytest.mark.parametrize(
    ("devices", "gpus", "expected"),
    [
        (["auto", "auto"], 2, [1, 1]),
        (["auto", "auto"], 1, [1, 0]),
        (["auto", "cuda"], 1, [0, 1]),
        (["cpu", "auto"], 1, [0, 1]),
    ],
)
def test_two_models_do_not_claim_the_same_gpu(
    monkeypatch: pytest.MonkeyPatch, devices: list[Any], gpus: float, expected: list[int]
) -> None:
    monkeypatch.setattr(app, "cluster_gpus", lambda: gpus)
    first, *more = [ModelSettings(id=f"m{i}", device=device) for i, device in enumerate(devices)]
    ingress: Any = app.build_graph(Settings(model=first, models=tuple(more)))._bound_deployment
    embedders = [embedder._bound_deployment for embedder in ingress.init_args[1]]
    assert [e.name for e in embedders] == ["Embedder", "Embedder-m1"]
    assert [e.ray_actor_options.get("num_gpus", 0) for e in embedders] == expected
