"""One request followed through a service: by its id in JSON logs, and by its spans."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import Jpeg
from tests.e2e.service.clients import run_python
from tests.servers import ROOT, Server, serve
from tests.until import until

ID = "order-66.a"
SPAN = "b7ad6b7169203331"
BOTH = {"raylens_Ingress", "raylens_Embedder"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["logging_config"] = {"encoding": "JSON", "enable_access_log": True}
    config["tracing_config"] = {"enabled": True, "sampling_ratio": 1.0}  # into Serve's own files
    folder = tmp_path_factory.mktemp("following")
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    with serve(folder, path) as server:
        yield server


@pytest.fixture(scope="module")
def answered(server: Server, jpeg: Jpeg) -> httpx.Response:
    """The answer to a request that brought an id."""
    headers = {"Content-Type": "image/jpeg", "X-Request-Id": ID}
    url = f"{server.url}/v1/embeddings"
    return httpx.post(url, content=jpeg(1), headers=headers, timeout=60)


def lines(server: Server) -> list[dict[str, Any]]:
    """What `raylens serve` has shown of its replicas' logs."""
    text = server.log.read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"')]


def deployments_that_logged(server: Server, request_id: str) -> set[str]:
    return {
        str(line["deployment"]) for line in lines(server) if line.get("request_id") == request_id
    }


def test_the_id_of_a_request_is_in_the_lines_of_the_ingress_and_of_the_model(
    server: Server, answered: httpx.Response
) -> None:
    assert answered.status_code == 200
    assert answered.headers["x-request-id"] == ID
    until(lambda: deployments_that_logged(server, ID) == BOTH, within_s=20)


def test_a_call_through_a_handle_has_one_id_in_both(
    server: Server, jpeg: Jpeg, tmp_path: Path
) -> None:
    (tmp_path / "other.jpg").write_bytes(jpeg(2))
    script = (
        "import ray; from ray import serve; ray.init(address='auto', log_to_driver=False); "
        "embed = serve.get_app_handle('raylens').embed; "
        "embed.remote([open('other.jpg', 'rb').read()]).result()"
    )
    run_python(server, script, tmp_path)

    def followed() -> bool:
        ids = {
            line["request_id"]
            for line in lines(server)
            if line.get("deployment") == "raylens_Ingress" and "CALL embed " in line["message"]
        }
        return any(deployments_that_logged(server, found) == BOTH for found in ids)

    until(followed, within_s=20)


def spans(server: Server) -> list[dict[str, Any]]:
    """All that Serve's own exporter has written, a JSON object after the other."""
    command = " ".join(" ".join(process.cmdline()) for process in server.family())
    session = re.search(r"/\S*/session_[0-9_-]+", command)
    assert session is not None
    found = []
    for file in (Path(session[0]) / "logs" / "serve" / "spans").glob("*"):
        text, decoder = file.read_text().lstrip(), json.JSONDecoder()
        with contextlib.suppress(ValueError):  # the last one is being written
            while text:
                span, end = decoder.raw_decode(text)
                found.append(span)
                text = text[end:].lstrip()
    return found


def tree(found: list[dict[str, Any]], parent: str, depth: int = 0) -> Iterator[str]:
    for span in sorted(found, key=lambda span: str(span["start_time"])):
        if span["parent_id"] == parent:
            yield f"{'  ' * depth}{span['name']}"
            yield from tree(found, span["context"]["span_id"], depth + 1)


def test_the_spans_of_a_request_hang_below_its_callers_span(server: Server, jpeg: Jpeg) -> None:
    # While HAProxy is getting to know the replicas, Serve's own proxy serves, which drops the
    # caller's trace: it has started before `tracing_config` was there.
    for number in range(1, 11):
        found = below(server, jpeg(100 + number), trace=f"{number:032x}")
        if found:
            break
    printed = [*tree(found, f"0x{SPAN}")]
    print("\n".join(printed))
    assert len(printed) == len(found)  # each has its place
    assert printed[0].startswith("replica_handle_request Ingress")
    names = [line.strip() for line in printed]
    model = next(i for i, n in enumerate(names) if n.startswith("replica_handle_request Embedder"))
    assert {*names[model + 1 :]} == {"queue", "model"}
    assert "decode" in names[:model]


def below(server: Server, image: bytes, *, trace: str) -> list[dict[str, Any]]:
    """The spans of a request that is part of its caller's trace; empty if there are none."""
    headers = {"Content-Type": "image/jpeg", "traceparent": f"00-{trace}-{SPAN}-01"}
    httpx.post(f"{server.url}/v1/embeddings", content=image, headers=headers, timeout=60)
    found: list[dict[str, Any]] = []

    def whole() -> bool:
        found[:] = [span for span in spans(server) if span["context"]["trace_id"] == f"0x{trace}"]
        return any(span["name"].startswith("replica_handle_request Ingress") for span in found)

    with contextlib.suppress(AssertionError):
        until(whole, within_s=3)
    return found
