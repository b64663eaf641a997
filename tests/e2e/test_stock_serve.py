"""The same config under Ray's own `serve run`, without anything that `raylens serve` sets up."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import yaml

from raylens.cluster import free_port, kill
from tests.servers import ROOT


def test_the_default_config_runs_under_the_stock_serve_run(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    port = config["http_options"]["port"] = free_port()
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    log = tmp_path / "log"
    env = {**os.environ, "RAY_ADDRESS": "local"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "serve"), "run", str(path)],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            env=env,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while not ready(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        files = [("file", jpeg(i, (64, 48))) for i in range(100)]  # more than one stack
        response = httpx.post(f"{url}/v1/embeddings", files=files, timeout=60)
        assert response.status_code == 200, response.text
        assert {len(d["embedding"]) for d in response.json()["data"]} == {1280}
        assert len(response.headers.get_list("x-request-id")) == 1
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        kill(family)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
