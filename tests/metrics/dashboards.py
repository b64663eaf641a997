"""The dashboard and the alerts that come with raylens."""

import json
import re
from typing import NamedTuple

import yaml

from deployments.metrics.declared import EmbedderMetrics, IngressMetrics, ReplicaMetrics
from tests.servers import ROOT

CLUSTER = ROOT / "configs" / "cluster"
RULES = CLUSTER / "prometheus-rules.yml"

# Serve's own metrics that they read, as ray 2.60 names them.
SERVES = {"ray_serve_autoscaling_target_replicas", "ray_serve_deployment_status"}


class Query(NamedTuple):
    """One line of a panel."""

    panel: str
    expression: str
    """With Grafana's variables."""

    def over(self, seconds: int) -> str:
        """As Prometheus takes it, for rates over so long."""
        ours = self.expression.replace("$__rate_interval", f"{seconds}s")
        return ours.replace("$application", ".*")


def dashboard_queries() -> list[Query]:
    dashboard = json.loads((CLUSTER / "grafana-dashboard.json").read_text())
    return [
        Query(panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def alert_expressions() -> dict[str, str]:
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def exported() -> dict[str, tuple[str, ...]]:
    """The labels of each of raylens's metrics by the name that Prometheus sees."""
    declared = (*IngressMetrics(), *EmbedderMetrics(), *ReplicaMetrics())
    return {f"ray_{name}": metric.labels for metric in declared for name in metric.series}
