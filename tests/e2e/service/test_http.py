"""Every way to send an image over HTTP gives the same vector, and only Ray's own ports are open."""

import base64
import re
import subprocess
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.service.clients import embed
from tests.servers import RAYLENS, Server


def test_path_url_base64_upload_and_raw_body_give_the_same_1280_numbers(
    server: Server, folder: Path, files: str
) -> None:
    data = (folder / "3.jpg").read_bytes()
    url = f"{server.url}/v1/embeddings"
    vectors = [
        embed(server, {"path": "3.jpg"}),
        embed(server, {"url": f"{files}/3.jpg"}),
        embed(server, {"base64": base64.b64encode(data).decode()}),
        httpx.post(url, files={"file": data}, timeout=30).json()["data"][0]["embedding"],
        httpx.post(url, content=data, headers={"content-type": "image/jpeg"}, timeout=30).json()[
            "data"
        ][0]["embedding"],
    ]
    assert len(vectors[0]) == 1280
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)
    for vector in vectors[1:]:
        assert vector == pytest.approx(vectors[0], abs=1e-6)
    assert embed(server, {"path": "4.jpg"}) != pytest.approx(vectors[0], abs=0.01)


def test_a_url_that_is_forbidden_or_missing_gets_its_error_code(server: Server, files: str) -> None:
    for url, status, code in (
        (f"{files}/none.jpg", 422, "fetch_failed"),
        ("http://10.0.0.1/a.jpg", 403, "url_forbidden"),
        ("http://169.254.169.254/latest/meta-data", 403, "url_forbidden"),
        ("http://127.0.0.1:22/", 400, "bad_url"),
    ):
        body = {"input": {"url": url}}
        response = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=30)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_openais_sdk_embeds_data_uris_with_its_defaults(server: Server, folder: Path) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    uris = [
        f"data:image/jpeg;base64,{base64.b64encode((folder / f'{i}.jpg').read_bytes()).decode()}"
        for i in range(2)
    ]
    answer = client.embeddings.create(model="efficientnet-lite0", input=uris)
    assert [d.index for d in answer.data] == [0, 1]
    for number, data in enumerate(answer.data):
        expected = embed(server, {"path": f"{number}.jpg"})
        assert data.embedding == pytest.approx(expected, abs=1e-6)
    assert [m.id for m in client.models.list()] == ["efficientnet-lite0"]


def test_the_health_and_models_commands_reach_the_service(server: Server) -> None:
    for command in ("health", "models"):
        done = subprocess.run(
            [str(RAYLENS), command, "--url", server.url], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        assert "efficientnet" in done.stdout


@pytest.mark.parametrize(
    ("headers", "kept"),
    [({}, False), ({"x-request-id": "mine-1.2_3"}, True), ({"x-request-id": "a b"}, False)],
)
def test_every_answer_has_exactly_one_request_id(
    server: Server, headers: dict[str, str], kept: bool
) -> None:
    for path in ("/livez", "/nowhere", "/v1/models"):
        response = httpx.get(server.url + path, headers=headers)
        (answered,) = response.headers.get_list("x-request-id")
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answered)
        assert (answered == headers.get("x-request-id")) is kept


def test_a_callers_headers_do_not_control_ray_serve(server: Server) -> None:
    headers = {"x-request-timeout-seconds": "0.0001", "serve_multiplexed_model_id": "x"}
    body = {"input": [{"path": f"{i}.jpg"} for i in range(20)]}
    response = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=30)
    assert response.status_code == 200


def test_beyond_loopback_only_rays_own_ports_are_open(server: Server) -> None:
    open_ports: dict[str, int] = {}
    for address, name in server.listening().items():
        if not address.startswith(("127.", "::1:")):
            open_ports[name] = open_ports.get(name, 0) + 1
    assert "haproxy" not in open_ports
    # Each worker process has one port of Ray's, guarded by its token; no replica has a second.
    assert open_ports.pop("ray::ServeReplica:raylens:Ingress"[:15], 0) <= 2
    known = ("gcs_server", "raylet", "raylens", "ray::", "ray-dashboard", "python")
    assert all(name.startswith(known) for name in open_ports), open_ports


def test_ray_runs_without_what_serving_does_not_take(server: Server) -> None:
    commands = [" ".join(process.cmdline()) for process in server.family()]
    modules = [command for command in commands if command.startswith("ray-dashboard-")]
    assert sorted(module.split("-")[2] for module in modules) == ["JobHead", "ServeHead"]
    assert not any("monitor.py" in command for command in commands)
