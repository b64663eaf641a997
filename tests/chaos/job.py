"""Another Ray job beside a running service, in a process of its own: `python -m tests.chaos.job`.

It deploys changed configs or calls the service's handle, and prints a line of JSON for each step.
"""

import base64
import json
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.hostile import pictures
from tests.servers import ROOT, Server

DEPLOY_WITHIN_S = 90
ANSWER_WITHIN_S = 60
SAMPLE_EVERY_S = 5.0

Step = dict[str, Any]
Changes = Mapping[str, Mapping[str, Any]]
"""By deployment, options that replace those in the config."""


def photo(seed: int) -> bytes:
    return pictures.saved(pictures.picture(seed=seed, side=320), "JPEG")


def deployed(server: Server, config: Path, changes: Sequence[Changes]) -> Iterator[Step]:
    """Deploys the config with each of `changes` in turn; a step, once all replicas are there and
    those too many are gone, tells how long this `took_s`."""
    configs = []
    for change in changes:
        content = yaml.safe_load(config.read_text())
        content["http_options"]["port"] = int(server.url.rpartition(":")[2])
        for deployment in content["applications"][0]["deployments"]:
            options = change.get(deployment["name"], {})
            if "autoscaling_config" in options:
                del deployment["num_replicas"]
            deployment |= options
        configs.append(content)
    yield from _steps(server, "deploy", json.dumps(configs))


def called(server: Server, seconds: float) -> Iterator[Step]:
    """Calls the handle for that long; every few seconds a step tells how many `calls` there were
    and the caller's `memory_mb`."""
    yield from _steps(server, "call", json.dumps(seconds))


def cancelled(server: Server, rounds: int) -> Iterator[Step]:
    """Calls the handle, and cancels 4 of 5 calls; a step tells how many were `given_up` and how
    many `stayed`, all of which were answered."""
    yield from _steps(server, "cancel", json.dumps(rounds))


def misshapen(server: Server) -> Iterator[Step]:
    """Sends the model stacks that no ingress sends; a step tells of each `shape` its `error`."""
    yield from _steps(server, "misshape", json.dumps(20))


def _steps(server: Server, command: str, argument: str) -> Iterator[Step]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.job", command],
        cwd=ROOT,
        env=server.ray_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(argument)
        process.stdin.close()
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
    assert process.returncode == 0, f"`{command}` by another Ray job failed; see above"


def tell(**step: Any) -> None:
    print(json.dumps(step), flush=True)


def deploy(configs: Sequence[dict[str, Any]]) -> None:
    import ray
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    context = ray.init(address="auto", log_to_driver=False)
    client = ServeSubmissionClient(f"http://{context.dashboard_url}")
    for config in configs:
        began = time.monotonic()
        client.deploy_applications(config)
        wanted = config["applications"][0]["deployments"]
        while not _is_there(client.get_serve_details()["applications"]["raylens"], wanted):
            assert time.monotonic() - began < DEPLOY_WITHIN_S, f"not deployed: {wanted}"
            time.sleep(0.1)
        tell(took_s=time.monotonic() - began)


def _is_there(application: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> bool:
    return application["status"] == "RUNNING" and all(
        _has(application["deployments"][options["name"]], options) for options in wanted
    )


def _has(deployment: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    config, replicas = deployment["deployment_config"], deployment["replicas"]
    if "autoscaling_config" in options:
        is_taken, number = config["autoscaling_config"] is not None, len(replicas)
    else:
        number = options["num_replicas"]
        is_taken = config["num_replicas"] == number
    return (
        is_taken
        and deployment["status"] == "HEALTHY"
        and [replica["state"] for replica in replicas] == ["RUNNING"] * number
    )


def ingress() -> Any:
    import ray
    from ray import serve

    ray.init(address="auto", log_to_driver=False)
    return serve.get_app_handle("raylens")


def call(seconds: float) -> None:
    """Nine of ten calls do not embed, so that there are many."""
    handle = ingress()
    data = [base64.b64encode(photo(seed)) for seed in range(32)]
    process = psutil.Process()
    ends = time.monotonic() + seconds
    calls = [0] * 4

    def run(caller: int) -> None:
        while time.monotonic() < ends:
            if calls[caller] % 10:
                handle.image_embedding_dimension.remote().result()
            else:
                image = data[(caller + calls[caller]) % len(data)]
                handle.embed_image_base64.remote(image).result()
            calls[caller] += 1

    threads = [threading.Thread(target=run, args=[caller]) for caller in range(len(calls))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(SAMPLE_EVERY_S)
        tell(calls=sum(calls), memory_mb=process.memory_full_info().uss / 1e6)


def cancel(rounds: int) -> None:
    handle = ingress()
    data = [base64.b64encode(photo(seed)).decode() for seed in range(32)]
    stayed = given_up = 0
    for number in range(rounds):
        responses = [
            # Some are larger than a batch, so that parts of them are cancelled.
            handle.embed.remote([{"base64": image} for image in random.sample(data, size)])
            for size in (1, 1, 9, 1, 1) * 4
        ]
        for place, response in enumerate(responses):
            if place % 5 != number % 5:
                response.cancel()
                given_up += 1
                time.sleep(random.uniform(0, 0.01))
        for response in responses[number % 5 :: 5]:
            response.result(timeout_s=ANSWER_WITHIN_S)
            stayed += 1
    tell(given_up=given_up, stayed=stayed)


def misshape(times: int) -> None:
    import numpy as np
    from ray import serve

    side = ingress().info.remote().result()["data"][0]["image_size"]
    handle = serve.get_deployment_handle("Embedder", "raylens")
    identity = handle.ready.remote().result().identity
    stacks: list[Any] = [
        None,
        np.uint8(1),
        np.zeros((0, side, side, 3), np.uint8),
        np.zeros((1, side, side), np.uint8),
        np.zeros((1, side, side, 4), np.uint8),
        np.zeros((1, side - 1, side, 3), np.uint8),
    ]
    for _ in range(times):
        for stack in stacks:
            error = None
            try:
                handle.embed.remote(stack, identity).result(timeout_s=ANSWER_WITHIN_S)
            except Exception as raised:
                error = type(getattr(raised, "cause", raised)).__name__
            tell(shape=str(np.shape(stack)), error=error)
        large = np.zeros((33, side, side, 3), np.uint8)
        made = handle.embed.remote(large, identity).result(timeout_s=ANSWER_WITHIN_S)
        assert len(made.vectors) == len(large)


COMMANDS: dict[str, Callable[[Any], None]] = {
    "deploy": deploy,
    "call": call,
    "cancel": cancel,
    "misshape": misshape,
}

if __name__ == "__main__":
    logging.disable(logging.INFO)  # a line for each call that is cancelled
    COMMANDS[sys.argv[1]](json.loads(sys.stdin.read()))
