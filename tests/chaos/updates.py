"""Updates that cannot start, and updates to another model, precision or size of batches."""

import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import yaml

from deployments.models.cpu import native_precisions
from deployments.wire import Vector
from tests.chaos.faults import Fault, SkippedError, ask_serve, deploy_content
from tests.chaos.traffic import Traffic
from tests.models import families
from tests.servers import Server
from tests.until import until

BUNDLED = "efficientnet-lite0"
PATIENCE_S = 180
Change = Callable[[dict[str, Any]], None]
"""Changes the application in a Serve config."""


@dataclass
class Several(Traffic):
    """Requests of several images. An answer that has not one model's vectors, those which it gave
    for the same images before, counts as failed."""

    items: int = 6
    model: str | None = None
    per_second_at_most: float = 3
    seen: dict[tuple[str, int], Vector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.per_second = min(self.per_second, self.per_second_at_most)
        self._base64 = [base64.b64encode(image).decode() for image in self.images]

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> int | str:
        images = [(self.items * number + n) % len(self.images) for n in range(self.items)]
        body: dict[str, Any] = {"input": [{"base64": self._base64[n]} for n in images]}
        if self.model is not None:
            body["model"] = self.model
        async with session.post(
            f"{self.url}/v1/embeddings", json=body, headers={"Content-Type": "application/json"}
        ) as response:
            answer = await response.json()
        if response.status != 200:
            return response.status
        for image, entry in zip(images, answer["data"], strict=True):
            vector = np.array(entry["embedding"], np.float32)
            expected = self.seen.setdefault((answer["model"], image), vector)
            if vector.shape != expected.shape or vector @ expected < 0.99:
                return "vectors of two models"
        return response.status


@dataclass
class Leaving(Several):
    """Large requests, half of whose callers leave before the answer."""

    items: int = 24
    per_second_at_most: float = 2

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> int | str:
        if number % 2:
            return await super()._ask(session, number)
        try:
            async with session.post(
                f"{self.url}/v1/embeddings",
                json={"input": [{"base64": image} for image in self._base64[: self.items]]},
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=0.1),
            ) as response:
                return response.status
        except TimeoutError:
            return 200  # as its caller wanted


def update(server: Server, config: Path, change: Change = lambda application: None) -> None:
    content = yaml.safe_load(config.read_text())
    change(content["applications"][0])
    deploy_content(server, content)


def status(server: Server) -> tuple[str, str]:
    """The application's, and the messages of its deployments; from where `serve status` has it."""
    path = "client.get_serve_details()['applications']['raylens']"
    application = json.loads(
        ask_serve(server, f"print(json.dumps({path}, default=str))").splitlines()[-1]
    )
    deployments = application["deployments"].values()
    messages = [application["message"], *(d["message"] for d in deployments)]
    return application["status"], "\n".join(messages)


def wait_for(server: Server, wanted: str) -> str:
    """Returns the messages that come with the wanted status."""
    found = [""]

    def is_wanted() -> bool:
        time.sleep(1)
        now, found[0] = status(server)
        return now == wanted

    until(is_wanted, within_s=PATIENCE_S)
    return found[0]


def refused(server: Server, config: Path, change: Change, *, reason: str) -> None:
    """An update that fails and tells why, and then the first config again."""
    update(server, config, change)
    assert reason in wait_for(server, "DEPLOY_FAILED")
    until(lambda: reason in server.log.read_text())
    time.sleep(5)
    update(server, config)
    wait_for(server, "RUNNING")


def model_is(**settings: Any) -> Change:
    def change(application: dict[str, Any]) -> None:
        application["args"]["model"] |= settings

    return change


def deployment_has(name: str, **options: Any) -> Change:
    def change(application: dict[str, Any]) -> None:
        (deployment,) = (d for d in application["deployments"] if d["name"] == name)
        deployment |= options

    return change


def missing_model(server: Server, config: Path) -> None:
    reason = "there is no such folder on this machine"
    refused(server, config, model_is(id="/no/such/model"), reason=reason)


def broken_ingress(server: Server, config: Path) -> None:
    variables = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "many"}
    options = {"runtime_env": {"env_vars": variables}}
    refused(
        server,
        config,
        deployment_has("Ingress", ray_actor_options=options),
        reason="cannot be converted",
    )


def no_room(server: Server, config: Path) -> None:
    """Replicas for which no machine has the processors."""
    options = {"num_cpus": 1000}
    update(server, config, deployment_has("Embedder", ray_actor_options=options))
    time.sleep(20)
    assert status(server)[0] == "DEPLOYING"
    update(server, config)
    wait_for(server, "RUNNING")


@contextmanager
def checkpoint() -> Iterator[Path]:
    """A tiny CLIP with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        yield families.write("CLIP", Path(folder) / "tiny-clip")


def serves(server: Server, **expected: Any) -> None:
    def is_served() -> bool:
        (model,) = httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]
        return all(model[name] == value for name, value in expected.items())

    until(is_served, within_s=PATIENCE_S)


def another_model(server: Server, config: Path) -> None:
    with checkpoint() as folder:
        for change, name in (
            (model_is(id=str(folder), aliases=["alias"]), folder.name),
            (model_is(aliases=["alias"]), BUNDLED),
        ):
            update(server, config, change)
            wait_for(server, "RUNNING")
            serves(server, id=name, dimensions={BUNDLED: 1280}.get(name, 24))
            time.sleep(5)


def another_precision(server: Server, config: Path) -> None:
    """Of a model that may have one: the bundled model's vectors differ too much in any other."""
    if "bfloat16" not in native_precisions():
        raise SkippedError("this processor has no instructions for bfloat16")
    with checkpoint() as folder:
        for precision in ("float32", "bfloat16", "float32"):
            update(server, config, model_is(id=str(folder), precision=precision))
            wait_for(server, "RUNNING")
            serves(server, id=folder.name, precision=precision)
            time.sleep(3)


def batch_sizes(server: Server, config: Path) -> None:
    before = [p.pid for p in server.replicas("Embedder")]
    for size in (16, 2, 8, 0, 1, 12, 1, 4):
        update(server, config, deployment_has("Embedder", user_config={"max_batch_size": size}))
        wait_for(server, "RUNNING")
    assert [p.pid for p in server.replicas("Embedder")] == before
    assert "invalid user_config" in server.log.read_text()  # the size of 0


by_name = partial(Several, model=BUNDLED)

UPDATES = (
    Fault("update to a model that is not there", missing_model, 4, traffic=by_name),
    Fault("update to an ingress that cannot start", broken_ingress, 4, traffic=by_name),
    Fault("update that no machine has room for", no_room, 4, traffic=by_name),
    Fault("update to another model and back", another_model, 6, traffic=Several),
    Fault(
        "update of two replicas to another model and back",
        another_model,
        6,
        ingresses=2,
        embedders=2,
        traffic=partial(Several, model="alias"),
        settings={"model": {"id": BUNDLED, "max_batch_size": 4, "aliases": ["alias"]}},
        # Four replicas for a while, whatever the machine has.
        env={"RAY_OVERRIDE_RESOURCES": '{"CPU": 8}'},
    ),
    Fault("update to another precision and back", another_precision, 6, traffic=Several),
    Fault("sizes of batches changed under load", batch_sizes, 4, traffic=Leaving),
)
