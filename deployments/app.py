"""The whole graph on one screen: the ingress in front, the model deployment behind it."""

from typing import Any

import ray
from ray.serve import Application

from deployments.embedder import Embedder
from deployments.ingress import Ingress
from deployments.settings import Batching, Model, Settings, load_settings


def build_app(args: dict[str, Any]) -> Application:
    """The application that a Serve config's `import_path` names.

    `args` holds raylens's own settings (`deployments/settings.py`); RAYLENS_… variables of this
    process override them. Raises SettingsError, which names the key.
    """
    return build_graph(load_settings(args))


def build_graph(settings: Settings) -> Application:
    options, placement = place(settings.model, cluster_gpus())
    embedder = Embedder.options(  # type: ignore[attr-defined]  # a serve.Deployment
        ray_actor_options=options,
        user_config=settings.model.model_dump(include=set(Batching.model_fields)),
    ).bind(settings.model, placement)
    return Ingress.bind(settings, embedder)  # type: ignore[attr-defined]


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
