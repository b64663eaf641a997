"""What calls the service: HTTP, and Python programs that are other Ray jobs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.servers import Server


def run_python(server: Server, script: str, folder: Path) -> str:
    """Runs a script outside the project's tree, as another Ray job."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=server.ray_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def embed(server: Server, item: Any) -> list[float]:
    response = httpx.post(f"{server.url}/v1/embeddings", json={"input": item}, timeout=30)
    assert response.status_code == 200, response.text
    embedding = response.json()["data"][0]["embedding"]
    assert isinstance(embedding, list)
    return embedding
