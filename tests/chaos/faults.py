"""What goes wrong with a running service, one function for each fault."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.chaos.traffic import Traffic
from tests.servers import ROOT, Server
from tests.until import until


class SkippedError(Exception):
    """A fault needs what this machine lacks; the message says what."""


@dataclass(frozen=True)
class Fault:
    """What to do to a service under steady traffic, and what its callers may see of it."""

    name: str
    strike: Callable[[Server, Path], Mapping[str, Any] | None]
    """May return figures to show; raises AssertionError if something else than traffic suffers."""
    most_gap_s: float
    ingresses: int = 1
    embedders: int = 1
    most_failed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    traffic: Callable[[str, Sequence[bytes], float], Traffic] = Traffic


def _killed(deployment: str, times: int, every_s: float) -> Callable[[Server, Path], None]:
    def strike(server: Server, config: Path) -> None:
        for _ in range(times):
            until(lambda: bool(server.replicas(deployment)))
            server.replicas(deployment)[0].kill()
            time.sleep(every_s)

    return strike


def haproxies(server: Server) -> list[psutil.Process]:
    """Also those that Serve's manager did not start."""
    folder = None
    for process in server.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "haproxy":
                files = [a for a in process.cmdline() if a.endswith("haproxy.cfg")]
                folder = next((Path(file).parent for file in files), folder)
    if folder is None:  # Serve's manager has not started one again yet
        return []

    def is_ours(process: psutil.Process) -> bool:
        try:
            return process.name() == "haproxy" and str(folder) in " ".join(process.cmdline())
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if is_ours(process)]


def haproxy_killed(server: Server, config: Path) -> None:
    for _ in range(3):
        for process in haproxies(server):
            process.kill()
        time.sleep(25)  # Serve replaces its manager meanwhile


def updated(server: Server, config: Path) -> None:
    deploy(server, config, {"Ingress": {"version": "2"}, "Embedder": {"version": "2"}})
    time.sleep(30)


def stopped_for_20_s(server: Server, config: Path) -> None:
    (victim,) = server.replicas("Embedder")
    victim.suspend()
    time.sleep(20)
    if victim.is_running():
        victim.resume()
    time.sleep(10)


def decode_workers_killed(server: Server, config: Path) -> None:
    for _ in range(10):
        module = "deployments.pixels.worker"
        for process in [p for p in server.family() if module in p.cmdline()][-1:]:
            process.kill()
        time.sleep(1)


def deploy(server: Server, config: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Deploys the config again with changed deployments, as `serve deploy` does."""
    content = yaml.safe_load(config.read_text())
    for deployment in content["applications"][0]["deployments"]:
        change = changes.get(deployment["name"])
        if change is not None:  # any difference makes Serve start new replicas
            deployment["ray_actor_options"] = {"runtime_env": {"env_vars": dict(change)}}
    deploy_content(server, content)


def deploy_content(server: Server, content: dict[str, Any]) -> None:
    content["http_options"]["port"] = int(server.url.rpartition(":")[2])
    ask_serve(server, f"client.deploy_applications(json.loads({json.dumps(content)!r}))")


def ask_serve(server: Server, statement: str) -> str:
    """What a statement prints that uses Serve's `client`."""
    script = (
        "import json, ray\n"
        "from ray.dashboard.modules.serve.sdk import ServeSubmissionClient\n"
        "context = ray.init(address='auto', log_to_driver=False)\n"
        "client = ServeSubmissionClient('http://' + context.dashboard_url)\n"
        f"{statement}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=server.ray_environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout


FAULTS = (
    # The next one takes 3 s to start, or 5 on an older processor.
    Fault("model replica killed, 3 times", _killed("Embedder", 3, 20), 6),
    Fault("model replica killed every 9 s", _killed("Embedder", 5, 9), 6),
    Fault("one of two model replicas killed", _killed("Embedder", 2, 15), 1, embedders=2),
    Fault("ingress replica killed", _killed("Ingress", 2, 20), 8),
    Fault("one of two ingress replicas killed", _killed("Ingress", 2, 20), 1, ingresses=2),
    Fault("HAProxy killed, 3 times", haproxy_killed, 1, most_failed=3),
    Fault("rolling update of both deployments", updated, 1),
    Fault("model replica stopped for 20 s", stopped_for_20_s, 30),
    Fault("decode workers killed one by one", decode_workers_killed, 1),
)
