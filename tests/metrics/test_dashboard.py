"""The dashboard and the alerts ask for metrics and labels that there are, and show all of them."""

import json
import re

import pytest

from deployments.metrics.declared import EmbedderMetrics, IngressMetrics, ReplicaMetrics
from tests.metrics.dashboards import (
    CLUSTER,
    SERVES,
    alert_expressions,
    dashboard_queries,
    exported,
    names_in,
)

SERVES_LABELS = {"application", "deployment", "replica"}
QUERIES = dashboard_queries()
EXPRESSIONS = {
    **{f"{query.panel} {number}": query.expression for number, query in enumerate(QUERIES)},
    **alert_expressions(),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(name: str) -> None:
    expression, known = EXPRESSIONS[name], exported()
    names = names_in(expression)
    assert names
    assert names - known.keys() <= SERVES
    labels = SERVES_LABELS | {"le"} | {label for n in names & known.keys() for label in known[n]}
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    used = {*matched, *(label.strip() for group in grouped for label in group.split(","))}
    assert used <= labels


def test_a_histogram_is_asked_for_by_its_buckets_or_by_its_mean() -> None:
    for name, expression in EXPRESSIONS.items():
        for asked in names_in(expression):
            if asked.endswith("_bucket"):
                assert "histogram_quantile" in expression, name


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for query in QUERIES for name in names_in(query.expression)}
    declared = (*IngressMetrics(), *EmbedderMetrics(), *ReplicaMetrics())
    series = {metric.name: {f"ray_{name}" for name in metric.series} for metric in declared}
    assert [name for name, names in series.items() if not shown & names] == []


def test_each_panel_says_what_it_shows() -> None:
    panels = json.loads((CLUSTER / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
