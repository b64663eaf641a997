"""What goes wrong with one model replica other than its death."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.chaos.faults import Fault
from tests.servers import Server

# <sys/ptrace.h> and <sys/wait.h>
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

# Of a service whose export is deleted.
CACHE = Path(tempfile.gettempdir()) / "raylens-chaos-cache"


def model_stuck(server: Server, config: Path) -> None:
    """The threads that compute, of one stream or of all, are held as by a debugger; the replica's
    event loop runs on."""
    (victim,) = server.replicas("Embedder")
    threads = computing_threads(victim)
    threading.Thread(target=hold, args=(threads,), daemon=True).start()
    time.sleep(75)
    assert victim not in server.replicas("Embedder"), "it was not replaced"


def computing_threads(process: psutil.Process) -> list[int]:
    """OpenVINO's: they take time during two seconds of traffic, and never wait for events as the
    threads with an event loop do. gRPC's have names of their own."""
    tasks = Path(f"/proc/{process.pid}/task")

    def used_s() -> dict[int, float]:
        return {thread.id: thread.user_time for thread in process.threads()}

    before = used_s()
    with_loop = set()
    for _ in range(200):
        time.sleep(0.01)
        with_loop |= {t for t in before if "epoll" in (tasks / f"{t}" / "wchan").read_text()}
    return [
        thread
        for thread, used in used_s().items()
        if used > before.get(thread, 0)
        and thread not in with_loop
        and (tasks / f"{thread}" / "comm").read_text().startswith("ray::")
    ]


def hold(threads: list[int]) -> None:
    """Stops these threads until their process ends."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    for thread in threads:
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if ptrace(request, thread, 0, 0):
                raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {thread}")
    for thread in threads:
        status = None
        while status is None or os.WIFSTOPPED(status):
            _, status = os.waitpid(thread, WALL)


def one_of_two_stopped(server: Server, config: Path) -> None:
    victim = server.replicas("Embedder")[0]
    victim.suspend()
    time.sleep(40)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.resume()
    time.sleep(5)


def export_deleted(server: Server, config: Path) -> None:
    shutil.rmtree(CACHE / "raylens" / "exported")
    time.sleep(10)


def processors_taken(server: Server, config: Path) -> None:
    """By 16 busy processes for 40 s: replicas are slow to answer their health checks, and must not
    be taken for stuck."""
    before = server.replicas("Embedder") + server.replicas("Ingress")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(16)]
    try:
        time.sleep(40)
        after = server.replicas("Embedder") + server.replicas("Ingress")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert after == before, "a replica was replaced"


REPLICA: tuple[Fault, ...] = (
    Fault("model stuck", model_stuck, 60, most_failed=600),
    Fault("one of two model replicas stopped", one_of_two_stopped, 2, embedders=2),
    Fault("export deleted", export_deleted, 1, env={"XDG_CACHE_HOME": str(CACHE)}),
    Fault("processors taken by others", processors_taken, 5),
)
