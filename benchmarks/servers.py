"""The servers that are measured, each in processes of its own: raylens, and infinity as its peer.

Both serve the same checkpoint, and both take the same request body.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
        seconds = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

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
def raylens(
    folder: Path, log: Path, settings: Mapping[str, str], *, config: Path | None = None
) -> Iterator[Server]:
    """`raylens serve` with the checkpoint in `folder`; `settings` become RAYLENS_ variables."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("raylens")), "serve", "--port", str(port)]
    variables = {f"RAYLENS_{key}": value for key, value in settings.items()}
    environment = {**os.environ, "RAYLENS_MODEL__ID": str(folder), **variables}
    url = f"http://127.0.0.1:{port}/v1/embeddings"

    def is_ready() -> bool:
        # It answers as soon as one replica does, but says this when all are there.
        return "raylens is ready" in log.read_text()

    command += [str(config)] if config else []
    with _running(command, environment, log, is_ready) as (process, ready_s):
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
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_HOME": str(log.parent)}
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/models", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    with _running(command, {**os.environ, **quiet}, log, is_ready) as (process, ready_s):
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        yield Server(f"infinity {dtype}", f"{url}/embeddings", model, process, ready_s)


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Path, is_ready: Callable[[], bool]
) -> Iterator[tuple[psutil.Process, float]]:
    """The command's process, and after how many seconds it was ready. Ends all that it started.

    Raises RuntimeError, with the end of its log, if it does not get ready.
    """
    began = time.monotonic()
    with log.open("w") as out:
        # In a session of its own: Ctrl-C comes to us alone, and we stop it once, in order.
        process = psutil.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        while not is_ready():
            if process.poll() is not None or time.monotonic() - began > 300:
                end = log.read_text()[-2000:]
                raise RuntimeError(f"{command[0]} is not ready ({process.poll()}):\n{end}")
            time.sleep(0.25)
        yield process, time.monotonic() - began
    finally:
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = process.children(recursive=True)
            process.send_signal(signal.SIGINT)
        psutil.wait_procs([process], timeout=60)
        _, left = psutil.wait_procs([process, *family], timeout=5)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=5)
