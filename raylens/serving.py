"""Runs a Serve config until it is told to stop.

Knows Serve configs, but nothing of the service inside them; `cluster.py` handles Ray.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console

from raylens.cluster import (
    STOP_TIMEOUT_S,
    NoRayError,
    StoppedError,
    existing_ray,
    http_front,
    local_ray,
)
from raylens.failures import failures, reason
from raylens.stopping import Stop, stop_signals

CLIENT_VARIABLES = ("RAYLENS_URL", "RAYLENS_API_KEY")
IMPORT_PATH = "deployments.app:build_app"
WATCH_EVERY_S = 5.0

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
        config = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ServingError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ServingError(f"{path} is not valid YAML: {error}") from None
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list) or not all(isinstance(a, dict) for a in applications):
        applications = None
    if not applications:
        raise ServingError(f"{path} is not a Serve config: it has no applications")
    given = config.get("http_options") or {}
    if not isinstance(given, dict):
        raise ServingError(f"{path}: http_options must be a mapping, not {given!r}")
    http = {**given, "host": host or given.get("host") or "127.0.0.1"}
    http["port"] = given.get("port", 8000) if port is None else port
    if type(http["port"]) is not int or not 0 < http["port"] < 65536:
        raise ServingError(f"the port must be a number from 1 to 65535, not {http['port']!r}")
    return {**config, "http_options": http}


def run(
    config: dict[str, Any], *, address: str | None, wait_s: float, dashboard: bool = False
) -> None:
    """Deploys `config`, says when it is ready, follows its logs, and stops when told to.

    With `address`, of a Ray that already runs, the service is left running at the end. Raises
    ServingError if it does not become ready.
    """
    http = config["http_options"]
    url = _url(http["host"], http["port"]) + route_prefix(config)
    began = time.monotonic()
    with contextlib.ExitStack() as cleanup:
        stop = cleanup.enter_context(stop_signals())
        if address is None:
            _refuse_taken_port(http["host"], http["port"])
            console.print("Checking settings and models …")
            _check_models(config, stop)
            if stop.is_set():
                console.print("\nStopped.")
                return
            console.print("Starting Ray …")
        else:
            _pass_on_settings(config, os.environ)
        try:
            ray = existing_ray(address) if address else local_ray(_show_log, dashboard=dashboard)
            serve_api, ray_address = cleanup.enter_context(ray)
        except NoRayError as error:
            raise ServingError(str(error)) from None
        except StoppedError:
            console.print("\nStopped.")
            os._exit(0)  # Ray's exit handlers fail without its processes
        console.print("Deploying …")
        try:
            client = _serve_client(serve_api)
            if address is None:
                cleanup.callback(_delete_quietly, client)
            client.deploy_applications(config)
        except (ConnectionError, RuntimeError) as error:  # all that Ray's client raises
            raise ServingError(f"Ray refuses the config: {reason(str(error))}") from None
        _wait_until_ready(client, url, stop, wait_s)
        if not stop.is_set():
            end = "stops it" if address is None else "leaves; the service keeps running"
            front = f", behind {http_front()}" if address is None else ""
            console.print(
                f"[bold green]raylens is ready[/] at [bold]{url}[/] "
                f"({time.monotonic() - began:.0f} s){front}. Ctrl-C {end}. "
                f"Open it in a browser, or try:\n\n"
                f"  curl {url}/v1/embeddings -H 'Content-Type: image/jpeg' {_key_header(url)}"
                "--data-binary @photo.jpg\n\n"
                f'or from Python: raylens.connect("{ray_address}")\n',
                soft_wrap=True,
            )
            _watch(client, stop)
        if address is None:
            console.print("Stopping …")


def _url(host: str, port: int) -> str:
    """The URL at which this machine reaches a service that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def route_prefix(config: Mapping[str, Any]) -> str:
    """The path below which raylens answers, without a slash at its end; mostly empty."""
    ours = [a for a in config["applications"] if a.get("import_path") == IMPORT_PATH]
    first = next(iter(ours or config["applications"]))
    return str(first.get("route_prefix") or "/").rstrip("/")


def _show_log(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _serve_client(url: str) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(url)


def _pass_on_settings(config: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Copies RAYLENS_… into the config, because a Ray that already runs lacks our environment."""
    ours = {
        name: value
        for name, value in environment.items()
        if name.startswith("RAYLENS_") and name not in CLIENT_VARIABLES
    }
    for application in config["applications"]:
        runtime_env = application.get("runtime_env") or {}
        env_vars = {**(runtime_env.get("env_vars") or {}), **ours}
        application["runtime_env"] = {**runtime_env, "env_vars": env_vars}


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            other = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise ServingError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with {other}"
            ) from None


def _check_models(config: Mapping[str, Any], stop: Stop) -> None:
    """Checks settings and checkpoints before Ray starts, and downloads these with a progress bar.

    The model replicas would do the same later, but have no terminal. Raises ServingError with
    their message if they could not start.
    """
    for application in config["applications"]:
        args, runtime_env = application.get("args") or {}, application.get("runtime_env") or {}
        well_formed = isinstance(args, dict) and isinstance(runtime_env, dict)
        if application.get("import_path") != IMPORT_PATH or not well_formed:
            continue  # not raylens, or malformed, which Ray reports
        own = runtime_env.get("env_vars") or {}
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "deployments.models.preflight"],
            env={**os.environ, **{str(name): str(value) for name, value in own.items()}},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # only we get Ctrl-C, and we pass it on
        ) as process:
            sentence = _output(process, json.dumps(args, default=str), stop)
        if stop.is_set():
            return
        if process.returncode != 0:
            which = f"{application.get('name')}: " if len(config["applications"]) > 1 else ""
            problem = sentence.strip() or f"checking the models ended with {process.returncode}"
            raise ServingError(which + problem)


def _output(process: "subprocess.Popen[str]", text: str, stop: Stop) -> str:
    """The process's output for the input `text`. Terminates it when `stop` is set."""
    left: str | None = text
    while True:
        try:
            return process.communicate(left, timeout=0.1)[0]
        except subprocess.TimeoutExpired:
            left = None  # communicate continues where it was
            if stop.is_set():
                process.terminate()


def _wait_until_ready(client: Any, url: str, stop: Stop, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not stop.wait(0.25):
        applications = {}
        with contextlib.suppress(Exception):  # the dashboard may be busy; there is a timeout
            applications = client.get_serve_details().get("applications", {})
        if found := failures(applications):
            raise ServingError(found[0])
        if applications and all(a["status"] == "RUNNING" for a in applications.values()):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200:
                    return
        if time.monotonic() > deadline:
            raise ServingError(f"not ready after {wait_s:g} s; the log above may say why")


def _key_header(url: str) -> str:
    """The option that curl needs if callers need a key."""
    with contextlib.suppress(httpx.HTTPError):
        if httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).status_code == 401:
            return '-H "Authorization: Bearer $RAYLENS_API_KEY" '
    return ""


def _watch(client: Any, stop: Stop) -> None:
    """Returns when told to stop; until then, shows why an update failed or a part died. Raises
    ServingError when Ray itself is gone."""
    silences = 0
    shown: list[str] = []
    while not stop.wait(WATCH_EVERY_S):
        try:
            applications = client.get_serve_details().get("applications", {})
            silences = 0
        except Exception:
            silences += 1
            if silences == 3:
                raise ServingError("Ray has stopped answering") from None
            continue
        found = failures(applications)
        for failure in found:
            if failure not in shown:
                _show_log(f"ERROR: Serve reports: {failure} (`serve status` has the details)")
        shown = found


def _delete_quietly(client: Any) -> None:
    """Graceful shutdown: lets requests finish. After STOP_TIMEOUT_S, what is left ends with Ray."""

    def delete() -> None:
        with contextlib.suppress(Exception):
            client.delete_applications()

    thread = threading.Thread(target=delete, daemon=True)
    thread.start()
    thread.join(STOP_TIMEOUT_S)
