"""The whole graph on one screen: the ingress in front, a deployment for each model behind it."""

from typing import Any

import ray
from ray.serve import Application

from deployments.config import load_settings
from deployments.embedder.deployment import Embedder
from deployments.ingress import Ingress
from deployments.settings import Batching, ModelSettings, Settings


def build_app(args: dict[str, Any]) -> Application:
    """Builds the application; a Serve config's `import_path` names this function.

    `args` holds raylens's own settings (`deployments/settings.py`); RAYLENS_… environment
    variables override them. Raises SettingsError, which names the key.
    """
    return build_graph(load_settings(args))


def build_graph(settings: Settings) -> Application:
    """The ingress, bound to a deployment for each model."""
    models = (settings.model, *settings.models)
    # Models that require a GPU are counted first: they take one each.
    gpus = cluster_gpus() - sum(model.device == "cuda" for model in models)
    embedders = []
    for model, name in zip(models, settings.deployments, strict=True):
        options, placement = place(model, gpus)
        gpus -= options.get("num_gpus", 0) if model.device == "auto" else 0
        embedder: Any = Embedder.options(  # type: ignore[attr-defined]  # a serve.Deployment
            name=name,
            ray_actor_options=options,
            user_config=model.model_dump(include=set(Batching.model_fields)),
        )
        embedders.append(embedder.bind(model, placement))
    return Ingress.bind(settings, embedders)  # type: ignore[attr-defined]


def place(model: ModelSettings, gpus: float) -> tuple[dict[str, float], str]:
    """The resources that a model replica requests from Ray, and the reason, as a clause.

    `gpus` are the GPUs not yet taken by other models.
    """
    if model.device == "cpu":
        return {"num_cpus": 1}, "model.device is cpu"
    if model.device == "cuda":
        return {"num_cpus": 1, "num_gpus": 1}, "model.device is cuda"
    if gpus >= 1:
        return {"num_cpus": 1, "num_gpus": 1}, "a GPU of the cluster was free"
    return {"num_cpus": 1}, "no GPU of the cluster was free when this was deployed"


def cluster_gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0.0
