"""What is counted in plain numbers reaches Ray whole: each value once, and sums exactly."""

import asyncio
import re
import resource
from collections import Counter as Tally
from typing import Any

import pytest
from ray.serve import metrics as serve_metrics

from deployments.errors import Overloaded
from deployments.metrics.declared import LIMITS, EmbedderMetrics, IngressMetrics, ReplicaMetrics
from deployments.metrics.export import Exporter
from deployments.metrics.kinds import Counter, Gauge, Histogram
from tests.servers import ROOT

Sent = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The last value of each gauge that Ray has been given."""
    values: Sent = {}

    def key(metric: Any, tags: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
        assert tuple(tags) == metric._tag_keys
        return metric._name, tuple(tags.items())

    def set_(self: Any, value: float, tags: dict[str, str]) -> None:
        values[key(self, tags)] = value

    monkeypatch.setattr(serve_metrics.Gauge, "set", set_)
    return values


async def test_a_counter_sends_its_sums(sent: Sent) -> None:
    counter = Counter("some_items", "Items.", ("source", "outcome"))
    exporter = Exporter([counter])
    counter.add(2, "url", "ok")
    exporter.flush()
    counter.add(1, "url", "ok")
    counter.add(5, "path", "ok")
    exporter.flush()
    exporter.flush()
    assert sent["some_items_total", (("source", "url"), ("outcome", "ok"))] == 3
    assert sent["some_items_total", (("source", "path"), ("outcome", "ok"))] == 5


async def test_a_counter_of_known_values_begins_at_0(sent: Sent) -> None:
    counters = [Counter("a", "A.", ("cause",), known=("this", "that")), Counter("b", "B.")]
    Exporter(counters).flush()
    zeros = {("a_total", (("cause", cause),)): 0 for cause in ("this", "that")}
    assert zeros.items() <= sent.items()
    assert sent["b_total", ()] == 0


async def test_a_gauge_sends_its_last_value(sent: Sent) -> None:
    gauge = Gauge("some_backlog", "Items.")
    waiting = [1, 2, 3]
    gauge.watch(lambda: len(waiting))
    exporter = Exporter([gauge])
    for number in (3, 0):
        del waiting[number:]
        exporter.flush()
        assert sent["some_backlog", ()] == number


async def test_a_histogram_sends_cumulative_buckets_and_an_exact_sum(sent: Sent) -> None:
    histogram = Histogram("some_seconds", "Seconds.", (0.1, 1), ("stage",))
    exporter = Exporter([histogram])
    for seconds in (0.05, 0.1, 0.7, 30):
        histogram.observe(seconds, "model")
    exporter.flush()
    stage = ("stage", "model")
    buckets = {le: sent["some_seconds_bucket", (stage, ("le", le))] for le in ("0.1", "1", "+Inf")}
    assert buckets == {"0.1": 2, "1": 3, "+Inf": 4}
    assert sent["some_seconds_sum", (stage,)] == pytest.approx(30.85)
    assert sent["some_seconds_count", (stage,)] == 4


async def test_a_replica_tells_when_it_started_and_how_long_that_took(sent: Sent) -> None:
    exporter = Exporter([])
    exporter.flush()
    assert ("raylens_start_seconds", ()) not in sent
    exporter.start()
    await asyncio.sleep(0)
    first = {name: value for (name, _), value in sent.items()}
    exporter.flush()
    assert first["raylens_start_seconds"] >= 0
    assert (
        sent["raylens_started_timestamp_seconds", ()] == first["raylens_started_timestamp_seconds"]
    )
    assert first["raylens_threads"] > 0


async def test_a_replica_whose_metrics_have_ended_fails_its_health_check(sent: Sent) -> None:
    gauge = Gauge("some_backlog", "Items.")
    gauge.watch(lambda: 1 // 0)
    exporter = Exporter([gauge])
    exporter.check()
    exporter.start()
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="export of metrics"):
        exporter.check()


def test_a_request_counts_with_its_outcome_and_with_what_refused_it() -> None:
    metrics = IngressMetrics()
    metrics.answered("/v1/rank", "raylens", None, 0.2)
    metrics.answered("/v1/rank", "raylens", Overloaded("later", limit="max_wait_s"), 0.001)
    with pytest.raises(Overloaded), metrics.answering("embed"):
        raise Overloaded("later")
    assert metrics.requests.values == {
        ("/v1/rank", "raylens", "ok"): 1,
        ("/v1/rank", "raylens", "overloaded"): 1,
        ("embed", "handle", "overloaded"): 1,
    }
    assert +Tally(metrics.refusals.values) == {("max_wait_s",): 1}
    assert metrics.request_seconds.values["/v1/rank",].sum == pytest.approx(0.201)


def test_names_are_raylenss_own_and_each_says_what_it_is() -> None:
    declared = [*IngressMetrics(), *EmbedderMetrics(), *ReplicaMetrics()]
    names = [metric.name for metric in declared]
    assert len({*names}) == len(names)
    for metric in declared:
        assert metric.name.startswith("raylens_")
        assert metric.description.endswith(".")
        assert "tenant" not in metric.labels


def test_every_limit_in_the_code_is_known() -> None:
    code = "".join(path.read_text() for path in (ROOT / "deployments").rglob("*.py"))
    assert {*re.findall(r'\blimit="(\w+)"', code)} | {"front"} == {*LIMITS}


async def test_a_request_through_a_handle_that_fails_is_no_success() -> None:
    metrics = IngressMetrics()
    for error in (ValueError("a bug"), asyncio.CancelledError(), Overloaded("full")):
        with pytest.raises(type(error)), metrics.answering("embed"):
            raise error
    assert metrics.requests.values == {
        ("embed", "handle", "internal"): 1,
        ("embed", "handle", "overloaded"): 1,
    }


async def test_a_replica_that_can_open_no_more_files_exports_what_it_knows(sent: Sent) -> None:
    """Or its health check would fail, and all replicas that are full of connections would go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    exporter = Exporter(IngressMetrics())
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        exporter.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ("raylens_tasks", ()) in sent
    assert ("raylens_open_files", ()) not in sent
