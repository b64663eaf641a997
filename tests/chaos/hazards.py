"""Known hazards of Ray Serve, by the number of their issue: what happened to others must not
happen here. Those that need no service are tests of the embedder."""

import asyncio
import contextlib
import http.client
import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.faults import Fault, haproxies
from tests.chaos.job import Changes, cancelled, deployed, misshapen, photo
from tests.chaos.traffic import Traffic
from tests.load import at_once
from tests.servers import Server

# Of both deployments.
GRACEFUL_SHUTDOWN_S = 20
# The controller's turns, and the start of new replicas.
SLACK_S = 12

IMAGES = [photo(seed) for seed in range(32)]
JPEG = {"Content-Type": "image/jpeg"}


def misshapen_stacks(server: Server, config: Path) -> dict[str, Any]:
    before = pids(server)
    errors = {step["shape"]: step["error"] for step in misshapen(server)}
    assert not {None, "TimeoutError"} & set(errors.values()), f"not refused: {errors}"
    assert before == pids(server), "a replica was replaced"
    return {"errors": errors}


def most_calls_cancelled(server: Server, config: Path) -> dict[str, Any]:
    seen = asyncio.run(disconnecting(server.url, rounds=10))
    (step,) = cancelled(server, rounds=10)
    later = asyncio.run(at_once(server.url, IMAGES * 2, callers=8))
    assert set(seen) <= {"given up", "200"}, f"clients that stayed saw {dict(seen)}"
    assert {o.status for o in later} == {200}, "calls after the cancelled ones failed"
    return {"given_up": seen["given up"] + step["given_up"], "stayed": seen["200"] + step["stayed"]}


async def disconnecting(url: str, rounds: int) -> Counter[str]:
    """Requests of which 4 of 5 are given up: how they ended."""
    seen: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=JPEG) as client:
        for number in range(rounds):
            tasks = [
                asyncio.create_task(client.post(f"{url}/v1/embeddings", content=image))
                for image in IMAGES[:20]
            ]
            for place, task in enumerate(tasks):
                if place % 5 != number % 5:
                    asyncio.get_running_loop().call_later(random.uniform(0, 0.1), task.cancel)
            await asyncio.wait(tasks)
            seen.update(map(ended, tasks))
    return seen


def ended(request: asyncio.Task[httpx.Response]) -> str:
    if request.cancelled():
        return "given up"
    error = request.exception()
    return str(request.result().status_code) if error is None else type(error).__name__


def replicas_leave_half_open_clients(server: Server, config: Path) -> dict[str, Any]:
    scaled_down: Changes = {name: {"num_replicas": 1} for name in ("Ingress", "Embedder")}
    version = {"ray_actor_options": {"runtime_env": {"env_vars": {"version": "2"}}}}
    updated: Changes = {name: {**scaled_down[name], **version} for name in scaled_down}
    took_s = {}
    for name, changes in (("scaled_down_s", scaled_down), ("updated_s", updated)):
        before = pids(server)
        with half_open_clients(server.url):
            (step,) = deployed(server, config, [changes])
        took_s[name] = round(step["took_s"], 1)
    assert not before & pids(server), "a replica of the old version is still there"
    assert max(took_s.values()) < GRACEFUL_SHUTDOWN_S + SLACK_S, f"replicas stayed: {took_s}"
    return took_s


@contextlib.contextmanager
def half_open_clients(url: str) -> Iterator[None]:
    """Ten that stop in the middle of their body, ten whose body comes a byte a second, and ten that
    keep their connection after an answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    leaving = threading.Event()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
        "Content-Length: 1000\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as closing:
        halves = [
            closing.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)
        ]
        for half in halves:
            half.sendall(head + bytes(100))
        kept = [http.client.HTTPConnection(host, int(port), timeout=60) for _ in range(10)]
        for connection in kept:
            closing.callback(connection.close)
            embed(connection, IMAGES[0])

        def trickle() -> None:
            while not leaving.wait(1):
                for half in halves[10:]:
                    with contextlib.suppress(OSError):  # refused in the meantime
                        half.sendall(b"0")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            yield
        finally:
            leaving.set()
            trickling.join()


def embed(connection: http.client.HTTPConnection, image: bytes) -> int:
    """The answer's status. Reconnects only after an answer with `Connection: close`."""
    connection.request("POST", "/v1/embeddings", image, JPEG)
    response = connection.getresponse()
    response.read()
    return response.status


def replicas_added_under_load(server: Server, config: Path) -> dict[str, Any]:
    before = pids(server)
    # Each model replica takes a processor, and there may be only two.
    more: Changes = {"Ingress": {"num_replicas": 3}, "Embedder": {"num_replicas": 2}}
    with Traffic(server.url, IMAGES, per_second=12) as traffic:
        (step,) = deployed(server, config, [more])
        time.sleep(3)
    assert before < pids(server), "a replica was replaced"
    assert not traffic.failed, f"requests failed: {traffic.failed}"
    return {"added_s": round(step["took_s"], 1), "p99_meanwhile_s": round(traffic.p99_s(), 2)}


def pids(server: Server) -> set[int]:
    return {p.pid for name in ("Ingress", "Embedder") for p in server.replicas(name)}


def haproxy_reloaded(server: Server, config: Path) -> dict[str, Any]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    ending = threading.Event()
    seen: Counter[str] = Counter()

    def client(pause_s: float) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        for image in itertools.cycle(IMAGES):
            try:
                seen[str(embed(connection, image))] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[f"{type(error).__name__} after {pause_s:g} s"] += 1
                connection.close()
            if ending.wait(pause_s):
                break
        connection.close()

    clients = [threading.Thread(target=client, args=[s]) for s in (0.2, 0.5, 1, 2, 5, 10, 20)]
    for thread in clients:
        thread.start()
    steps: list[Changes] = [{"Ingress": {"num_replicas": n}} for n in (2, 1) * 5]
    workers: set[int] = set()
    try:
        for _ in deployed(server, config, steps):
            workers |= {process.pid for process in haproxies(server)}
    finally:
        ending.set()
        for thread in clients:
            thread.join()
    assert len(workers) > 7, f"HAProxy was hardly reloaded: {workers}"
    assert set(seen) == {"200"}, f"clients with kept connections saw {dict(seen)}"
    return {"kept": seen["200"], "haproxies": len(workers)}


def autoscaled_up_and_down(server: Server, config: Path) -> dict[str, Any]:
    # Delays shorter than the period that is looked back on, as in the issue.
    autoscaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "look_back_period_s": 3,
        "metrics_interval_s": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 1,
    }
    list(deployed(server, config, [{"Embedder": {"autoscaling_config": autoscaling}}]))
    numbers = []
    statuses: Counter[int] = Counter()
    for _ in range(3):
        ends = time.monotonic() + 7
        while time.monotonic() < ends:
            outcomes = asyncio.run(at_once(server.url, IMAGES, callers=6))
            statuses.update(o.status for o in outcomes)
            numbers.append(len(server.replicas("Embedder")))
        ends = time.monotonic() + 7
        while time.monotonic() < ends:
            time.sleep(0.5)
            numbers.append(len(server.replicas("Embedder")))
    changes = sum(a != b for a, b in itertools.pairwise(numbers))
    assert set(statuses) == {200}, f"requests failed: {dict(statuses)}"
    assert changes >= 4, f"no thrash: {numbers}"
    return {"answered": statuses[200], "changes": changes}


HAZARDS = (
    Fault("misshapen stacks for the model (ray#66140)", misshapen_stacks, 1),
    Fault("80 % of calls cancelled (ray#50046, 41057)", most_calls_cancelled, 3),
    Fault(
        "replicas leave half-open clients (ray#51598, 60748)",
        replicas_leave_half_open_clients,
        1,
        ingresses=2,
        embedders=2,
    ),
    Fault("load while replicas are added (ray#46702)", replicas_added_under_load, 2),
    Fault("HAProxy reloaded under kept connections (ray#66056)", haproxy_reloaded, 1),
    Fault("autoscaled up and down (ray#26455)", autoscaled_up_and_down, 3),
)
