"""The service as its users run it: one `raylens serve`, HTTP and handles against it.

One process tree serves all tests of this folder, file by file; the last file kills a replica.
"""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.service.clients import run_python
from tests.servers import ROOT, Server, serve


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Path:
    """The image root: real photos under short names."""
    folder = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
    return folder


@pytest.fixture(scope="package")
def files(folder: Path) -> Iterator[str]:
    """The same photos over HTTP, on a loopback port."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="package")
def config(tmp_path_factory: pytest.TempPathFactory, folder: Path, files: str) -> Path:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    port = int(files.rpartition(":")[2])
    config["applications"][0]["args"] |= {
        "image_roots": [str(folder)],
        # On one thread the model is the slowest part, so that its queue fills.
        "model": {"id": "efficientnet-lite0", "threads": 1},
        "cache": {"max_bytes": 0},  # the same few photos are embedded again and again
        "fetch": {"allow_cidrs": ["127.0.0.0/8"], "allow_ports": [80, port]},
    }
    for deployment in config["applications"][0]["deployments"]:
        deployment["health_check_period_s"] = 1  # each check updates the gauges
    path = tmp_path_factory.mktemp("config") / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Iterator[Server]:
    often = {"RAY_metrics_report_interval_ms": "1000"}
    with serve(tmp_path_factory.mktemp("server"), config, env=often) as server:
        yield server


@pytest.fixture(scope="package")
def metrics_url(server: Server) -> str:
    """Where Ray's agent offers the metrics of all replicas to Prometheus."""
    script = (
        "import json, ray; ray.init(address='auto', log_to_driver=False); node = ray.nodes()[0]; "
        "print('METRICS', node['NodeManagerAddress'], node['MetricsExportPort'])"
    )
    output = run_python(server, script, Path("/"))
    _, host, port = next(line for line in output.splitlines() if "METRICS" in line).split()
    return f"http://{host}:{port}/metrics"
