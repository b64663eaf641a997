"""The same policy in a real service of 1 to 3 replicas, beside what the simulator says.

The model sleeps (`stub`), so two processors are enough; HTTP, the ingress, Serve, its controller,
the starts of replicas and the batches are real.
"""

import asyncio
import base64
import re
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import httpx
import numpy as np

from benchmarks.autoscale import policies, traces
from benchmarks.autoscale.service import serving
from benchmarks.autoscale.simulator import Outcome, Profile, Simulator
from benchmarks.autoscale.traces import Trace
from raylens import bench
from tests.servers import Server

PROFILE = Profile(batch_s=0.05, image_s=0.05, max_batch_size=8, start_s=5.0, tick_s=0.5)
STEP_S = 30.0
OPTIONS = policies.ours(max_replicas=3, down_after_s=20)
STARTED = re.compile(r"deployment='Embedder'.*started successfully.* after ([\d.]+)s")


@dataclass
class Seen:
    """What the callers of the service saw, and what its controller logged."""

    latencies_s: list[float] = field(default_factory=list)
    profile: Profile = PROFILE
    """With the batch times of lone requests."""
    beside_s: float = 0.0
    """What each of those took beside the model."""
    earlier: list[tuple[float, int]] = field(default_factory=list)
    """When those were sent (seconds since 1970), and how many images each had: the policy
    remembers them."""
    statuses: list[int] = field(default_factory=list)
    first_s: dict[float, float] = field(default_factory=dict)
    """When each replica's first answer came, in seconds after the load began."""
    began: float = 0.0
    replica_s: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


def trace() -> Trace:
    """Quiet, a step, a slow climb and quiet again, in less than three minutes."""
    load = np.concatenate(
        [np.full(30, 0.4), np.full(50, 1.5), np.linspace(1.5, 2.2, 40), np.full(40, 0.3)]
    )
    return traces.trace("small", load, PROFILE.full_image_s, seed=6, mean=1)


def images(number: int) -> list[str]:
    """So many different ones, in base64."""
    return [base64.b64encode(image).decode() for image in bench.photos(number, (16, 16))]


async def load(url: str, wanted: Trace, seen: Seen) -> None:
    """Sends each request when it is due, whether or not earlier ones were answered."""
    pool = images(512)
    begin = time.monotonic()

    async def one(session: aiohttp.ClientSession, due: float, first: int, items: int) -> None:
        content = [{"base64": pool[(first + n) % len(pool)]} for n in range(items)]
        async with session.post(f"{url}/v1/embeddings", json={"input": content}) as response:
            answer = await response.json()
        seen.statuses.append(response.status)
        if response.status == 200:
            seen.latencies_s.append(time.monotonic() - due)
            for entry in answer["data"]:
                a, b = entry["embedding"][:2]
                seen.first_s.setdefault(round(a / b), time.monotonic() - begin)

    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        tasks = []
        first = 0
        for at, items in zip(wanted.arrivals_s.tolist(), wanted.items.tolist(), strict=True):
            await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
            tasks.append(asyncio.create_task(one(session, begin + at, first, items)))
            first += items
        await asyncio.gather(*tasks)


def calibrate(url: str, seen: Seen) -> None:
    """Measures lone requests of one image and of a full batch: their batches, and all the rest."""
    pool = images(PROFILE.max_batch_size)
    model_s, beside_s = [], []
    with httpx.Client(timeout=60) as client:
        for items in (1, PROFILE.max_batch_size):
            content = {"input": [{"base64": image} for image in pool[:items]]}
            batches, rest = [], []
            for _ in range(20):
                began = time.monotonic()
                seen.earlier.append((time.time(), items))
                response = client.post(f"{url}/v1/embeddings", json=content).raise_for_status()
                took_s = time.monotonic() - began
                stages = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
                batches.append(float(stages["model"]) / 1e3)
                rest.append(took_s - batches[-1])
            model_s.append(float(np.median(batches)))
            beside_s.append(float(np.median(rest)))
    image_s = (model_s[1] - model_s[0]) / (PROFILE.max_batch_size - 1)
    seen.profile = replace(PROFILE, batch_s=model_s[0] - image_s, image_s=image_s)
    seen.beside_s = beside_s[0]


def measured(wanted: Trace) -> Seen:
    """Starts the service and runs the trace against it."""
    seen = Seen()
    with serving(
        batch_s=PROFILE.batch_s,
        image_s=PROFILE.image_s,
        max_batch_size=PROFILE.max_batch_size,
        embedder={"autoscaling_config": OPTIONS},
    ) as server:
        calibrate(server.url, seen)
        time.sleep(2 * OPTIONS["policy"]["policy_kwargs"]["down_after_s"])
        thread = threading.Thread(target=lambda: asyncio.run(load(server.url, wanted, seen)))
        thread.start()
        seen.began = time.time()
        began = before = time.monotonic()
        while (now := time.monotonic()) < began + wanted.seconds:
            seen.replica_s += len(server.replicas("Embedder")) * (now - before)
            before = now
            time.sleep(0.2)
        thread.join()
        log = controller_log(server)
    seen.starts_s = [float(match[1]) for match in map(STARTED.search, log) if match]
    for line in log:
        if "wanted. What arrives" in line:
            at = datetime.strptime(line[5:24], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            after_s = at.timestamp() + int(line[25:28]) / 1e3 - seen.began - STEP_S
            seen.decisions.append(f"{after_s:6.1f} s after the step:{line.split('--')[1]}")
    return seen


def controller_log(server: Server) -> list[str]:
    controllers = [p.pid for p in server.family() if "ServeController" in " ".join(p.cmdline())]
    for pid in controllers:
        for path in Path("/tmp/ray").glob(f"session_*/logs/serve/controller_{pid}.log"):  # noqa: S108
            return path.read_text().splitlines()
    return []


def simulated(wanted: Trace, seen: Seen, start_s: float) -> Outcome:
    """Of the trace, after the same requests as in the service."""
    profile = replace(seen.profile, start_s=start_s)
    lead_s = round(seen.began - seen.earlier[0][0]) + 5
    at = np.array([sent - seen.began + lead_s for sent, _ in seen.earlier])
    items = np.array([number for _, number in seen.earlier])

    def run(trace: Trace) -> Outcome:
        return Simulator(profile, trace, policies.Served(profile, OPTIONS), replicas=1).run()

    before = run(Trace("before", at, items, lead_s))
    outcome = run(
        Trace(
            wanted.name,
            np.concatenate([at, wanted.arrivals_s + lead_s]),
            np.concatenate([items, wanted.items]),
            wanted.seconds + lead_s,
        )
    )
    outcome.replica_s -= before.replica_s
    own = outcome.latencies_s[len(seen.earlier) :]
    outcome.latencies_s = [latency_s + seen.beside_s for latency_s in own]
    return outcome


def main() -> None:
    wanted = trace()
    seen = measured(wanted)
    start_s = float(np.median(seen.starts_s[1:] or seen.starts_s or [PROFILE.start_s]))
    outcome = simulated(wanted, seen, start_s)
    print(
        f"a batch takes {1e3 * seen.profile.batch_s:.0f} ms and {1e3 * seen.profile.image_s:.1f} "
        f"for each image; a request {1e3 * seen.beside_s:.0f} more"
    )
    refused = sum(status == 429 for status in seen.statuses)
    later = [at for at in sorted(seen.first_s.values()) if at > STEP_S]
    print(f"replicas started in {', '.join(f'{s:.1f}' for s in seen.starts_s)} s")
    for at in later:
        print(f"first answer of another replica {at - STEP_S:.1f} s after the step")
    rows = (
        ("replica-minutes", seen.replica_s / 60, outcome.replica_s / 60),
        ("p50, ms", 1e3 * float(np.percentile(seen.latencies_s, 50)), 1e3 * outcome.percentile(50)),
        ("p99, ms", 1e3 * float(np.percentile(seen.latencies_s, 99)), 1e3 * outcome.percentile(99)),
        ("refused", float(refused), float(outcome.refused)),
        ("failed", float(sum(s not in (200, 429) for s in seen.statuses)), 0.0),
    )
    print(f"{'':18} {'measured':>10} {'simulated':>10}")
    for name, real, predicted in rows:
        apart = f"{100 * (predicted / real - 1):+.0f} %" if real else ""
        print(f"{name:18} {real:10.2f} {predicted:10.2f} {apart:>8}")
    for line in seen.decisions:
        print(line)
