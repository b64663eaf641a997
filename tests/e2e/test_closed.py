"""The service locked down: all of Ray on loopback only, and a key required of every caller."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raylens.cluster import LOOPBACK_ONLY
from tests.servers import RAYLENS, ROOT, Server, serve
from tests.until import until

CLOSED = {LOOPBACK_ONLY: "0"}
JOB = """
import raylens
print(len(raylens.connect().embed_image({"base64": open(0).read()})))
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys"


def raylens(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [RAYLENS, *arguments], env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    return raylens("keys", "add", "ci", "--file", str(keys)).stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: Path, key: str) -> Iterator[Server]:
    env = {
        **CLOSED,
        "RAYLENS_AUTH__KEYS_FILE": os.path.relpath(keys, ROOT),
    }
    folder = tmp_path_factory.mktemp("server")
    with serve(folder, ROOT / "serve_config.yaml", env=env) as server:
        yield server


def test_nothing_listens_on_an_address_that_other_machines_can_reach(server: Server) -> None:
    listening = server.listening()
    assert len(listening) > 10
    assert not {a: n for a, n in listening.items() if not a.startswith(("127.", "::1:"))}


def test_a_ray_job_that_has_the_variable_can_connect(server: Server, photos: list[Path]) -> None:
    encoded = subprocess.run(["base64", "-w0", photos[0]], capture_output=True, check=True).stdout
    job = subprocess.run(
        [sys.executable, "-c", JOB],
        env={**server.ray_environment(), **CLOSED},
        input=encoded,
        capture_output=True,
        timeout=60,
    )
    assert job.stdout.split()[-1:] == [b"1280"], job.stderr


def test_keys_are_required_and_are_added_and_revoked_while_it_runs(
    server: Server, keys: Path, key: str
) -> None:
    def status(secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.get(f"{server.url}/v1/models", headers=headers).status_code

    assert "-H 'Content-Type: image/jpeg' -H \"Authorization: Bearer $RAYLENS_API_KEY\"" in (
        server.log.read_text()
    )
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert (status(key), status(key + "x")) == (200, 401)
    assert "1280" in raylens("models", "--url", server.url, RAYLENS_API_KEY=key).stdout
    assert "RAYLENS_API_KEY" in raylens("models", "--url", server.url).stderr
    second = raylens("keys", "add", "more", "--file", str(keys)).stdout.strip()
    until(lambda: status(second) == 200)
    raylens("keys", "revoke", "more", "--file", str(keys))
    until(lambda: status(second) == 401)
    assert status(key) == 200
    assert key not in server.log.read_text()
