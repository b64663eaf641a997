"""The whole graph on one screen: the ingress in front, a deployment for each model behind it."""

from pathlib import Path
from typing import Any

import ray
from ray.serve import Application

from deployments.embedder import Embedder
from deployments.ingress import Ingress
from deployments.settings import Batching, Model, Settings, SettingsError, load_settings


def build_app(args: dict[str, Any]) -> Application:
    """The application that a Serve config's `import_path` names.

    `args` holds raylens's own settings (`deployments/settings.py`); RAYLENS_… variables of this
    process override them. Raises SettingsError, which names the key.
    """
    return build_graph(load_settings(args))


def build_graph(settings: Settings) -> Application:
    gpus = cluster_gpus()
    embedders = [
        _embedder(model, name, gpus)
        for model, name in zip(
            (settings.model, *settings.models), embedder_names(settings), strict=True
        )
    ]
    return Ingress.bind(settings, embedders)  # type: ignore[attr-defined]


def embedder_names(settings: Settings) -> list[str]:
    """The models' deployments, as the config's `deployments` calls them: `Embedder`, and for a
    further model `Embedder-` with the last part of its id. Raises SettingsError for equal ones.
    """
    names = ["Embedder", *(f"Embedder-{Path(model.id).name}" for model in settings.models)]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"models: two of them would have the deployment {name}")
    return names


def _embedder(model: Model, name: str, gpus: float) -> Application:
    options, placement = place(model, gpus)
    embedder: Any = Embedder.options(  # type: ignore[attr-defined]  # a serve.Deployment
        name=name,
        ray_actor_options=options,
        user_config=model.model_dump(include=set(Batching.model_fields)),
    )
    return embedder.bind(model, placement)


def place(model: Model, gpus: float) -> tuple[dict[str, float], str]:
    """The resources that a model replica asks Ray for, and the reason as a clause."""
    if model.device == "cpu":
        return {"num_cpus": 1}, "model.device is cpu"
    if model.device == "cuda":
        return {"num_cpus": 1, "num_gpus": 1}, "model.device is cuda"
    if gpus >= 1:
        return {"num_cpus": 1, "num_gpus": 1}, f"the cluster has {gpus:g} GPU(s)"
    return {"num_cpus": 1}, "the cluster had no GPU when this was deployed"


def cluster_gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0.0
