"""Runs `raylens serve` as a user would, in a process of its own, and watches how it ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from raylens.cluster import free_port

ROOT = Path(__file__).parent.parent
RAYLENS = Path(sys.executable).parent / "raylens"


class Server:
    """A running `raylens serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def listening(self) -> dict[str, str]:
        """Each address and port that one of its processes listens on, and that process's name."""
        found = {}
        for process in [psutil.Process(self.process.pid), *self.family()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        ip = connection.laddr.ip.removeprefix("::ffff:")
                        found[f"{ip}:{connection.laddr.port}"] = process.name()
        return found

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The replica processes of `Ingress` or `Embedder`, by the title Ray gives them."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if f"ServeReplica:raylens:{deployment}" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def ray_environment(self) -> dict[str, str]:
        """Lets `ray.init(address="auto")` find this Ray, whatever other ones run here."""
        match = re.search(r'raylens\.connect\("(\S+)"\)', self.log.read_text())
        assert match is not None
        return {**os.environ, "RAY_ADDRESS": match[1], "RAY_AUTH_MODE": "token"}

    def wait_until_ready(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if "raylens.connect(" in self.log.read_text():
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s:\n{self.log.read_text()}")


def terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def serve(
    folder: Path,
    config: Path,
    *,
    stop: Callable[[int], None] = terminate,
    env: Mapping[str, str] | None = None,
    ready_s: float = 120,
) -> Iterator[Server]:
    """`raylens serve CONFIG` on a free port; at the end, `stop` must shut it all down cleanly."""
    port = free_port()
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(RAYLENS), "serve", str(config), "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        server.wait_until_ready(ready_s)
        yield server
        family = server.family()
        stop(process.pid)
        assert process.wait(60) == 0, log.read_text()
        _, alive = psutil.wait_procs(family, timeout=3)
        assert not alive, f"left behind: {alive}"
    finally:
        if process.poll() is None:
            for relative in [*server.family(), psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    relative.kill()
            process.wait()


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of one metric over all label sets that have `labels`, in Prometheus text."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            total += float(line.rsplit(" ", 1)[1])
    return total
