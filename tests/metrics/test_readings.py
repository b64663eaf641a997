"""What `raylens top` makes of two readings of a service's metrics."""

import pytest
from typer.testing import CliRunner

from raylens.cli import app
from raylens.readings import Reading, figures, local_endpoints, quantile
from tests.answering import answering


def text(**numbers: float) -> str:
    """A service that has answered `ok` images, `texts` and so on, in Prometheus's words."""
    common = 'application="raylens",deployment="Ingress",replica="a"'
    model = 'application="raylens",deployment="Embedder",replica="b"'
    n = {"ok": 0, "texts": 0, "failed": 0, "refused": 0, "batches": 0, "waiting": 0} | numbers
    requests = n["ok"] + n["failed"]
    return "\n".join(
        [
            "# HELP ray_raylens_requests_total Requests.",
            f'ray_raylens_requests_total{{{common},endpoint="/x",outcome="ok"}} {n["ok"]}',
            f'ray_raylens_requests_total{{{common},outcome="unavailable"}} {n["failed"]}',
            f'ray_raylens_refusals_total{{{common},limit="front"}} {n["refused"]}',
            f'ray_raylens_items_total{{{common},source="url",outcome="ok"}} {n["ok"]}',
            f'ray_raylens_items_total{{{common},source="text",outcome="ok"}} {n["texts"]}',
            f'ray_raylens_items_total{{{common},source="url",outcome="unavailable"}} {n["failed"]}',
            f'ray_raylens_request_seconds_bucket{{{common},endpoint="/x",le="0.1"}} {n["ok"]}',
            f'ray_raylens_request_seconds_bucket{{{common},endpoint="/x",le="1"}} {requests}',
            f'ray_raylens_request_seconds_bucket{{{common},endpoint="/x",le="+Inf"}} {requests}',
            f'ray_raylens_cache_lookups_total{{{common},result="hit"}} {n["ok"] / 4}',
            f'ray_raylens_cache_lookups_total{{{common},result="miss"}} {n["ok"] * 3 / 4}',
            f"ray_raylens_threads{{{common}}} 30",
            f"ray_raylens_threads{{{model}}} 20",
            f"ray_raylens_backlog_items{{{common}}} {n['waiting']}",
            f'ray_raylens_batch_size_sum{{{model},modality="image"}} {n["batches"] * 4}',
            f'ray_raylens_batch_size_count{{{model},modality="image"}} {n["batches"]}',
            f'ray_raylens_batch_seconds_sum{{{model},modality="image"}} {n["batches"] * 0.02}',
            f'ray_raylens_batch_seconds_count{{{model},modality="image"}} {n["batches"]}',
            "ray_gcs_something 1.0",
        ]
    )


def test_figures_are_what_has_happened_between_two_readings() -> None:
    before = Reading([text(ok=1000, batches=100)], at=100)
    after = Reading([text(ok=1090, texts=20, failed=10, refused=5, batches=120, waiting=7)], at=110)
    now = figures(before, after)
    assert (now.requests_per_s, now.images_per_s, now.texts_per_s) == (10, 9, 2)
    assert (now.failed_per_s, now.refused_per_s, now.bad_items_per_s) == (1, 0.5, 1)
    assert now.cached == pytest.approx(0.25)
    assert now.p50_s == pytest.approx(0.1 * 50 / 90)
    assert now.p99_s == pytest.approx(0.1 + 0.9 * 9 / 10)
    ingress, model = now.deployments["Ingress"], now.deployments["Embedder"]
    assert (ingress.replicas, ingress.waiting, ingress.batch_size) == (1, 7, None)
    assert (model.replicas, model.batch_size) == (1, 4)
    assert model.batch_s == pytest.approx(0.02)


def test_a_service_that_began_again_counts_from_nothing() -> None:
    now = figures(Reading([text(ok=1000)], at=0), Reading([text(ok=10)], at=10))
    assert now.requests_per_s == 1


def test_a_batch_that_still_runs_or_failed_took_no_time_that_is_known() -> None:
    begun = 'ray_raylens_batch_size_count{deployment="Embedder",modality="image"} 1'
    model = figures(Reading([""], at=0), Reading([begun], at=10)).deployments["Embedder"]
    assert (model.batch_size, model.batch_s) == (0, None)


def test_nothing_is_known_of_times_without_requests() -> None:
    now = figures(Reading([text(ok=5)], at=0), Reading([text(ok=5)], at=1))
    assert (now.p50_s, now.p99_s, now.cached) == (None, None, None)


def test_a_quantile_beyond_the_last_boundary_is_that_boundary() -> None:
    assert quantile({"1": 0, "+Inf": 10}, 0.5) == 1
    assert quantile({}, 0.5) is None


def test_top_prints_one_reading_and_ends() -> None:
    numbers = iter([0, 50])

    def answer(path: str) -> tuple[int, bytes]:
        return 200, text(ok=next(numbers), batches=1).encode()

    with answering(answer) as url:
        command = ["top", "--once", "--window", "0.1", "--metrics", f"{url}/metrics"]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    # On 80 columns, as here, all of it is there.
    for word in ("requests/s", "p99", "refused/s", "bad items/s", "Embedder", "batch size"):
        assert word in done.output


def test_top_says_where_nothing_is() -> None:
    with answering(lambda path: (200, b"up 1\n")) as url:
        done = CliRunner().invoke(app, ["top", "--once", "--metrics", url])
    assert done.exit_code == 1
    assert "no metrics of raylens" in done.output
    done = CliRunner().invoke(app, ["top", "--once", "--metrics", url])
    assert done.exit_code == 3


def test_top_finds_the_service_of_this_machine(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path_factory.mktemp("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    done = CliRunner().invoke(app, ["top", "--once"])
    assert done.exit_code == 3
    assert "--metrics" in done.output
    session = parent / "ray" / "session_latest"
    session.mkdir(parents=True)
    with answering(lambda path: (200, text(ok=1).encode())) as url:
        (session / "metrics_export_port_0a").write_text(url.rpartition(":")[2])
        done = CliRunner().invoke(app, ["top", "--once", "--window", "0.1"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "line",
    [
        'ray_raylens_requests_total{outcome="ok"} many',
        'ray_raylens_request_seconds_bucket{le="long"} 7',
        "ray_raylens_request_seconds_bucket 7",  # added up over `le`
        'ray_raylens_request_seconds_bucket{le="0.1"} NaN',
        'ray_raylens_queue_items{deployment="Ingress"} NaN',
    ],
)
def test_what_is_no_number_is_left_out(line: str) -> None:
    before = Reading([text(ok=0)], at=0)
    now = figures(before, Reading([f"{text(ok=10)}\n{line}"], at=10))
    assert (now.requests_per_s, now.p50_s) == (1, 0.05)
    assert now.deployments["Ingress"].waiting == 0


def test_top_leaves_out_nodes_that_have_gone(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray leaves the files with their ports behind."""
    parent = tmp_path_factory.mktemp("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    session = parent / "ray" / "session_latest"
    session.mkdir(parents=True)
    with answering(lambda path: (200, text(ok=1).encode())) as url:
        port = url.rpartition(":")[2]
    (session / "metrics_export_port_0a").write_text(port)
    (session / "metrics_export_port_0b").write_text("")
    with answering(lambda path: (200, text(ok=1).encode())) as url:
        (session / "metrics_export_port_0c").write_text(url.rpartition(":")[2])
        assert local_endpoints() == [f"http://127.0.0.1:{url.rpartition(':')[2]}/metrics"]
