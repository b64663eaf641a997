"""The servers that are measured, each in processes of its own: raylens, and infinity as its peer.

Both serve the same checkpoint, and both take the same request body.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from raylens.cluster import free_port


@dataclass
class Server:
    """One that runs: where it takes embedding requests, and what it uses."""

    name: str
    url: str
    model: str
    process: psutil.Process
    ready_s: float

    def cpu_s(self) -> float:
        """Processor seconds of those of its processes that run now."""
        times = [p.cpu_times() for p in self._family()]
        return sum(t.user + t.system for t in times)

    def memory_mb(self) -> float:
        """Proportional set size of its processes: what they share is counted once."""
        total = 0
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 1e6

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def raylens(folder: Path, log: Path, **settings: str) -> Iterator[Server]:
    """`raylens serve` with the checkpoint in `folder`; `settings` are RAYLENS_ variables."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("raylens")), "serve", "--port", str(port)]
    variables = {f"RAYLENS_{key}": value for key, value in settings.items()}
    environment = {**os.environ, "RAYLENS_MODEL__ID": str(folder), **variables}
    ready = f"http://127.0.0.1:{port}/readyz"
    url = f"http://127.0.0.1:{port}/v1/embeddings"
    with _running(command, environment, log, ready) as (process, ready_s):
        yield Server("raylens", url, folder.name, process, ready_s)


@contextlib.contextmanager
def infinity(venv: Path, folder: Path, log: Path, dtype: str, batch: int) -> Iterator[Server]:
    """infinity_emb of the virtual environment `venv`, without its telemetry."""
    port = free_port()
    command = [
        *(str(venv / "bin" / "infinity_emb"), "v2", "--model-id", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--engine", "torch", "--device", "cpu"),
        *("--dtype", dtype, "--batch-size", str(batch), "--no-bettertransformer", "--no-compile"),
    ]
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    url = f"http://127.0.0.1:{port}"
    with _running(command, environment, log, f"{url}/models") as (process, ready_s):
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        name = f"infinity {dtype}, batch {batch}"
        yield Server(name, f"{url}/embeddings", model, process, ready_s)


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Path, ready_url: str
) -> Iterator[tuple[psutil.Process, float]]:
    began = time.monotonic()
    with log.open("a") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)  # noqa: S603
    try:
        while True:
            if process.poll() is not None or time.monotonic() - began > 300:
                raise RuntimeError(f"{command[0]} did not get ready; see {log}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(ready_url, timeout=10).status_code == 200:
                    break
            time.sleep(0.25)
        yield psutil.Process(process.pid), time.monotonic() - began
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
