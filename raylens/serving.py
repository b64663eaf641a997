"""Runs a Serve config: a Ray of its own on loopback, or one that already runs.

Knows Serve configs and Ray's switches, but nothing of the service inside them.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import yaml
from rich.console import Console

from raylens.logs import LogFollower

CLIENT_VARIABLES = ("RAYLENS_URL", "RAYLENS_API_KEY")

# Ray replaces 127.0.0.1 by the machine's outward address, but takes the rest of the loopback
# network as it is. On macOS, which has 127.0.0.1 alone there, Ray keeps to it by itself.
NODE_ADDRESS = "127.0.0.2" if sys.platform == "linux" else None

console = Console(stderr=True, highlight=False)


class ServingError(Exception):
    """The service cannot start; the message says why."""


def default_config() -> Path:
    """The config that comes with raylens: in the wheel, or beside the package in a checkout."""
    here = Path(__file__).parent
    inside = here / "serve_config.yaml"
    return inside if inside.exists() else here.parent / "serve_config.yaml"


def read_config(path: Path, *, host: str | None, port: int | None) -> dict[str, Any]:
    """The Serve config in `path`, with the address to listen on replaced where given."""
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ServingError(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ServingError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(config, dict) or not config.get("applications"):
        raise ServingError(f"{path} is not a Serve config: it has no applications")
    http = config.setdefault("http_options", {})
    http["host"] = host or http.get("host", "127.0.0.1")
    http["port"] = port or http.get("port", 8000)
    return config


def serve_environment(scratch: Path) -> dict[str, str]:
    """Ray's switches for a fast, quiet, private service (measured: see benchmarks/)."""
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # HAProxy in front of the replicas and gRPC between them: 4,600 instead of 164 no-op
        # requests/s. HAProxy comes with ray[serve] on Linux; elsewhere Serve's own proxy runs.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if sys.platform == "linux" else "0",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port(8404)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port(9101)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port(8500)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port(9500)),
        # Of its own for every run, or a second service would take over the first one's HAProxy.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        # A stack of pixels is one message; Ray's default is 4 MiB.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 1024 * 1024),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.api.fence.middlewares",
        # One node has no load balancers that must first learn that a replica leaves.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        # The throughput switch would keep the replicas' log lines from the terminal.
        "RAY_SERVE_LOG_TO_STDERR": "1",
    }
    if (os.cpu_count() or 1) <= 4:
        switches["RAY_SERVE_HAPROXY_NBTHREAD"] = "1"
    return switches


def free_port(preferred: int) -> int:
    """`preferred` if nothing listens there, else a port that the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServingError("the system has no free port")


def run(config: dict[str, Any], *, address: str | None, wait_s: float) -> None:
    """Deploys `config`, says when it is ready, follows its logs, and stops when told to.

    With `address`, of a Ray that already runs, the service is left running at the end. Raises
    ServingError when it does not get ready.
    """
    http = config["http_options"]
    url = f"http://{'127.0.0.1' if http['host'] == '0.0.0.0' else http['host']}:{http['port']}"  # noqa: S104
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        if address is None:
            _refuse_taken_port(http["host"], http["port"])
            dashboard = stack.enter_context(_local_ray(stop))
        else:
            dashboard = stack.enter_context(_existing_ray(address, stop))
            _pass_on_settings(config, os.environ)
        client = _serve_client(dashboard)
        if address is None:
            stack.callback(_delete_quietly, client)
        began = time.monotonic()
        console.print("Deploying …")
        client.deploy_applications(config)
        _wait_until_ready(client, url, stop, wait_s)
        if not stop.is_set():
            console.print(
                f"[bold green]raylens is ready[/] at [bold]{url}[/] "
                f"({time.monotonic() - began:.0f} s). Try:\n\n"
                f"  curl {url}/v1/embeddings -H 'Content-Type: image/jpeg' "
                "--data-binary @photo.jpg\n\nCtrl-C stops it.",
                soft_wrap=True,
            )
            _watch(client, stop)
        console.print("Stopping …" if address is None else "The service goes on running.")


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def handler(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():  # the second one: at once
            os._exit(128 + signum)
        stop.set()

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


@contextlib.contextmanager
def _keep_handlers() -> Iterator[None]:
    """Puts the signal handlers back that ray.init replaces."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@contextlib.contextmanager
def _local_ray(stop: threading.Event) -> Iterator[str]:
    """A Ray head on loopback; yields its dashboard's URL and leaves no process behind."""
    with tempfile.TemporaryDirectory(prefix="raylens-") as scratch:
        for name, value in serve_environment(Path(scratch)).items():
            os.environ.setdefault(name, value)
        import psutil
        import ray

        with _keep_handlers():
            context = ray.init(
                address="local",
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                _node_ip_address=NODE_ADDRESS,
                object_store_memory=256 * 1024 * 1024,  # arrays go by gRPC, not through it
            )
        logs = LogFollower(
            Path(context.address_info["session_dir"]) / "logs" / "serve",
            lambda line: console.print(line, markup=False, soft_wrap=True),
        )
        try:
            yield f"http://{context.dashboard_url}"
        finally:
            logs.close()
            family = psutil.Process().children(recursive=True)
            ray.shutdown()
            _, alive = psutil.wait_procs(family, timeout=5)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=5)


@contextlib.contextmanager
def _existing_ray(address: str, stop: threading.Event) -> Iterator[str]:
    import ray

    with _keep_handlers():
        try:
            context = ray.init(address=address)
        except ConnectionError as error:
            raise ServingError(f"no Ray at {address}: {error}") from None
    try:
        yield f"http://{context.dashboard_url}"
    finally:
        ray.shutdown()


def _serve_client(dashboard: str) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(dashboard)


def _pass_on_settings(config: dict[str, Any], environment: Mapping[str, str]) -> None:
    """A Ray that already runs does not have our environment: RAYLENS_… goes with the config."""
    ours = {
        name: value
        for name, value in environment.items()
        if name.startswith("RAYLENS_") and name not in CLIENT_VARIABLES
    }
    for application in config["applications"]:
        runtime_env = application.setdefault("runtime_env", {})
        runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **ours}


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServingError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
            ) from None


def _wait_until_ready(client: Any, url: str, stop: threading.Event, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not stop.wait(0.25):
        applications = client.get_serve_details().get("applications", {})
        for name, application in applications.items():
            if application["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
                which = f"{name}: " if len(applications) > 1 else ""
                raise ServingError(f"{which}{_reason(application)}")
        if applications and all(a["status"] == "RUNNING" for a in applications.values()):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                    return
        if time.monotonic() > deadline:
            raise ServingError(f"not ready after {wait_s:g} s; the log above may say why")


def _reason(application: Mapping[str, Any]) -> str:
    """The last line of a failure, which is the error's own sentence, without its traceback."""
    messages = [application["message"]]
    messages += [d.get("message", "") for d in application.get("deployments", {}).values()]
    for message in messages:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        for line in reversed(lines):
            kind, _, sentence = line.partition(": ")
            if kind.endswith(("Error", "Exception")) and sentence:
                return str(sentence)
    return str(next((m for m in messages if m), application["status"]))


def _watch(client: Any, stop: threading.Event) -> None:
    """Until told to stop. Raises ServingError when Ray itself is gone."""
    failures = 0
    while not stop.wait(5):
        try:
            client.get_serve_details()
            failures = 0
        except Exception:
            failures += 1
            if failures == 3:
                raise ServingError("Ray has stopped answering") from None


def _delete_quietly(client: Any) -> None:
    # Lets requests finish; what it cannot stop, the end of Ray stops.
    with contextlib.suppress(Exception):
        client.delete_applications()
