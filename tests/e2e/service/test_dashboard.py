"""Every panel of the dashboard shows something of a service with traffic, by a real Prometheus."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raylens.cluster import free_port
from tests.conftest import Jpeg
from tests.metrics.dashboards import SERVES, alert_expressions, dashboard_queries
from tests.servers import RAYLENS, Server

PROMETHEUS = shutil.which("prometheus")

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: ray
    metrics_path: /metrics
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
def prometheus(metrics_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of one that scrapes the service every second."""
    if PROMETHEUS is None:
        pytest.skip("prometheus is not there; apt-get install prometheus")
    target = metrics_url.removeprefix("http://").removesuffix("/metrics")
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(target=target))
    address = f"127.0.0.1:{free_port()}"
    command = [PROMETHEUS, f"--config.file={config}", f"--web.listen-address={address}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={tmp_path / 'data'}"], stdout=log, stderr=log
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def ask(prometheus: str, expression: str) -> list[Any]:
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=10)
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    result: list[Any] = answer.json()["data"]["result"]
    return result


def shown(found: Any) -> str:
    names = ",".join(f"{k}={v}" for k, v in found["metric"].items())
    return f"{{{names}}} {float(found['value'][1]):.4g}"


def test_every_panel_and_alert_runs_on_a_real_prometheus(
    server: Server, prometheus: str, files: str, jpeg: Jpeg
) -> None:
    bodies: list[dict[str, Any]] = [
        {"input": {"path": "1.jpg"}},
        {"input": [{"url": f"{files}/2.jpg"}, {"url": f"{files}/3.jpg"}]},
        {"input": {"path": "none.jpg"}},
    ]
    until = time.monotonic() + 60
    missing = {"all"}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        while missing and time.monotonic() < until:
            for body in bodies * 5:
                client.post("/v1/embeddings", json=body)
            time.sleep(0.5)
            answers = [(q.panel, ask(prometheus, q.over(10))) for q in dashboard_queries()]
            missing = {panel for panel, found in answers if not found}
    for panel, found in answers:
        print(f"{panel:28} | {'; '.join(map(shown, found)) or 'nothing'}")
    assert not missing
    for name, expression in alert_expressions().items():
        print(f"{name:28} | {'; '.join(map(shown, ask(prometheus, expression))) or 'quiet'}")
    for name in SERVES:
        assert ask(prometheus, name), f"Ray has no {name}"


def test_raylens_top_shows_the_service(server: Server, metrics_url: str) -> None:
    for _ in range(3):
        httpx.post(f"{server.url}/v1/embeddings", json={"input": {"path": "1.jpg"}}, timeout=60)
    command = [str(RAYLENS), "top", "--once", "--window", "1", "--metrics", metrics_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Ingress" in done.stdout
    assert "Embedder" in done.stdout
