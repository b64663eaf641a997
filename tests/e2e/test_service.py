"""The service as its users run it: one `raylens serve`, HTTP and handles against it.

One process tree serves all tests of this file, in their order; the last ones hurt it.
"""

import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import yaml

from tests.load import at_once, at_rate
from tests.servers import RAYLENS, ROOT, Server, metric, serve

DEADLINE_S = 30
MAX_BATCH_SIZE = 8

Jpeg = Callable[..., bytes]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Path:
    """The image root: real photos under short names."""
    folder = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> Iterator[str]:
    """The same photos over HTTP, on a loopback port."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, folder: Path, files: str) -> Path:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    port = int(files.rpartition(":")[2])
    config["applications"][0]["args"] |= {
        "image_roots": [str(folder)],
        # Slower than all that is around it, so that its queue fills.
        "model": {"id": "efficientnet-lite0", "threads": 1},
        "cache": {"max_bytes": 0},  # the same few photos are embedded again and again
        "fetch": {"allow_cidrs": ["127.0.0.0/8"], "allow_ports": [80, port]},
    }
    path = tmp_path_factory.mktemp("config") / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server"), config) as server:
        yield server


@pytest.fixture(scope="module")
def metrics_url(server: Server) -> str:
    """Where Ray's agent offers the metrics of all replicas to Prometheus."""
    script = (
        "import json, ray; ray.init(address='auto', log_to_driver=False); node = ray.nodes()[0]; "
        "print('METRICS', node['NodeManagerAddress'], node['MetricsExportPort'])"
    )
    output = run_python(server, script, Path("/"))
    _, host, port = next(line for line in output.splitlines() if "METRICS" in line).split()
    return f"http://{host}:{port}/metrics"


def run_python(server: Server, script: str, folder: Path) -> str:
    """Runs a script outside the project's tree, as another Ray job would be."""
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


def test_a_url_that_is_not_allowed_or_not_there_gets_its_code(server: Server, files: str) -> None:
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


def test_a_ray_job_outside_the_tree_gets_the_same_vector_by_handle(
    server: Server, tmp_path: Path
) -> None:
    script = """
import json, ray
from ray import serve
ray.init(address="auto", log_to_driver=False)
handle = serve.get_app_handle("raylens")
vector = handle.embed_image.remote("5.jpg").result()
assert vector.dtype == "float32" and vector.shape == (1280,)
try:
    handle.embed_image.remote("none.jpg").result()
except Exception as error:
    code = [error.code, error.status, error.param]
print("RESULT", json.dumps({"vector": vector.tolist(), "error": code}))
"""
    result = json.loads(run_python(server, script, tmp_path).partition("RESULT")[2])
    assert result["vector"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert result["error"] == ["path_not_found", 404, "input"]


def test_connect_offers_the_handles_methods_with_plain_calls(
    server: Server, tmp_path: Path, files: str, folder: Path
) -> None:
    data = base64.b64encode((folder / "5.jpg").read_bytes()).decode()
    script = f"""
import json, numpy as np, raylens
client = raylens.connect()
one = client.embed_image("5.jpg")
assert np.allclose(client.embed_image_url("{files}/5.jpg"), one, atol=1e-6)
assert np.allclose(client.embed_image_base64("{data}"), one, atol=1e-6)
both = client.batch_embed_images(["5.jpg", {{"path": "6.jpg"}}])
assert both.shape == (2, 1280) and np.allclose(both[0], one, atol=1e-6)
good, bad = client.embed([{{"path": "5.jpg"}}, {{"path": "none.jpg"}}], on_error="report")
assert np.allclose(good, one, atol=1e-6) and bad.code == "path_not_found"
codes = []
for call in (client.text_embedding_dimension, lambda: client.embed_text("a cat"),
             lambda: client.batch_text_image_similarity(["a"], [])):
    try:
        call()
    except Exception as error:
        codes.append(error.code)
result = {{"vector": one.tolist(), "dimension": client.image_embedding_dimension(),
           "model": client.info()["data"][0]["id"], "codes": codes}}
print("RESULT", json.dumps(result))
"""
    result = json.loads(run_python(server, script, tmp_path).partition("RESULT")[2])
    assert result["vector"] == pytest.approx(embed(server, {"path": "5.jpg"}), abs=1e-6)
    assert (result["dimension"], result["model"]) == (1280, "efficientnet-lite0")
    assert result["codes"] == ["text_unsupported", "text_unsupported", "bad_request"]


def test_health_and_models_on_the_command_line(server: Server) -> None:
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


def test_a_callers_headers_do_not_steer_serve(server: Server) -> None:
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
    # Each worker process has one, of Ray's, which wants its token; no replica has a second one.
    assert open_ports.pop("ray::ServeReplica:raylens:Ingress"[:15], 0) <= 2
    known = ("gcs_server", "raylet", "raylens", "ray::", "ray-dashboard", "python")
    assert all(name.startswith(known) for name in open_ports), open_ports


async def test_64_callers_each_get_their_own_vector_in_full_batches(
    server: Server, jpeg: Jpeg, metrics_url: str
) -> None:
    images = [jpeg(i, (160, 120)) for i in range(64)]
    alone = [o.body["data"][0]["embedding"] for o in await at_once(server.url, images, callers=1)]
    async with httpx.AsyncClient() as client:
        sum_name = "ray_raylens_batch_items_total"
        count_name = "ray_raylens_batches_total"
        await asyncio.sleep(11)  # the metrics of what went before have been reported
        before = (await client.get(metrics_url)).text
        outcomes = await at_once(server.url, images * 8, callers=64)
        await asyncio.sleep(11)
        after = (await client.get(metrics_url)).text
    assert {o.status for o in outcomes} == {200}
    for number, outcome in enumerate(outcomes):
        got = outcome.body["data"][0]["embedding"]
        assert got == pytest.approx(alone[number % 64], abs=1e-5)
    images_seen = metric(after, sum_name) - metric(before, sum_name)
    batches = metric(after, count_name) - metric(before, count_name)
    assert images_seen == len(outcomes)
    print(f"average batch: {images_seen / batches:.2f} of {MAX_BATCH_SIZE}")
    assert images_seen / batches >= 0.75 * MAX_BATCH_SIZE


async def test_threads_tasks_and_files_stay_flat_over_2000_mixed_requests(
    server: Server, metrics_url: str, files: str, jpeg: Jpeg
) -> None:
    data = base64.b64encode(jpeg(1, (64, 48))).decode()
    bodies: list[Any] = [
        {"input": {"path": "1.jpg"}},
        {"input": {"base64": data}},
        {"input": {"url": f"{files}/2.jpg"}},
        {"input": [{"path": "none.jpg"}, {"base64": data}], "on_error": "report"},
        {"input": {"url": f"{files}/none.jpg"}},
        {"input": {"url": "http://10.0.0.1/a.jpg"}},
        {"input": {"base64": data[:40]}},
        {"input": 7},
        {"nothing": 1},
        {"input": {"base64": data}, "encoding_format": "base64"},
    ]

    async def burst(number: int) -> None:
        turn = asyncio.Semaphore(16)
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:

            async def one(body: Any) -> None:
                async with turn:
                    response = await client.post(f"{server.url}/v1/embeddings", json=body)
                    assert response.status_code < 500, response.text

            await asyncio.gather(*(one(bodies[i % len(bodies)]) for i in range(number)))

    async def counts() -> dict[str, float]:
        await asyncio.sleep(16)  # idle connections close; a health check and a report later
        async with httpx.AsyncClient() as client:
            text = (await client.get(metrics_url)).text
        found = {
            f"{deployment} {name}": metric(text, f"ray_raylens_{name}", deployment=deployment)
            for deployment in ("Ingress", "Embedder")
            for name in ("threads", "python_threads", "tasks", "open_files")
        }
        for deployment in ("Ingress", "Embedder"):
            (process,) = server.replicas(deployment)
            assert found[f"{deployment} threads"] == pytest.approx(process.num_threads(), abs=2)
        return found

    await burst(200)  # the pools fill
    before = await counts()
    await burst(2000)
    after = await counts()
    print(f"before {before}\nafter 2,000 requests {after}")
    for name, value in before.items():
        assert value > 0
        assert after[name] <= value + 4


def test_the_batch_size_changes_without_a_restart(server: Server, config: Path, jpeg: Jpeg) -> None:
    script = f"""
import yaml, ray
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
context = ray.init(address="auto", log_to_driver=False)
config = yaml.safe_load(open("{config}"))
config["http_options"]["port"] = {server.url.rpartition(":")[2]}
for deployment in config["applications"][0]["deployments"]:
    if deployment["name"] == "Embedder":
        deployment["user_config"] = {{"max_batch_size": 3}}
ServeSubmissionClient("http://" + context.dashboard_url).deploy_applications(config)
"""
    pids = [p.pid for p in server.replicas("Embedder")]
    log = server.log.read_text()
    run_python(server, script, Path("/"))
    deadline = time.monotonic() + 60
    while "batches of at most 3" not in server.log.read_text()[len(log) :]:
        assert time.monotonic() < deadline, server.log.read_text()[len(log) :]
        time.sleep(0.5)
    assert len(embed(server, {"path": "1.jpg"})) == 1280
    assert [p.pid for p in server.replicas("Embedder")] == pids


async def test_a_killed_model_replica_costs_callers_no_hang_and_comes_back(
    server: Server, jpeg: Jpeg
) -> None:
    images = [jpeg(i, (320, 240)) for i in range(250)]
    load = asyncio.create_task(at_rate(server.url, images, per_second=10, timeout_s=DEADLINE_S + 1))
    await asyncio.sleep(3)
    (victim,) = server.replicas("Embedder")
    victim.kill()
    outcomes = await load
    statuses = {o.status for o in outcomes}
    slowest = max(o.took_s for o in outcomes)
    print(
        f"statuses { ({s: sum(o.status == s for o in outcomes) for s in statuses}) }, "
        f"slowest {slowest:.1f} s"
    )
    assert statuses <= {200, 503}
    assert slowest <= DEADLINE_S
    assert {o.status for o in outcomes[-20:]} == {200}
