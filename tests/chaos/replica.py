"""What goes wrong with one model replica other than its death."""

import contextlib
import ctypes
import os
import threading
import time
from pathlib import Path

import psutil

from tests.chaos.faults import Fault
from tests.servers import Server

# <sys/ptrace.h> and <sys/wait.h>
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000


def model_stuck(server: Server, config: Path) -> None:
    """The threads that compute are held by a debugger; the replica's event loop runs on."""
    (victim,) = server.replicas("Embedder")
    threads = computing_threads(victim)
    print(threads, time.ctime())
    threading.Thread(target=hold, args=(threads,), daemon=True).start()
    time.sleep(75)


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
        with_loop |= {t for t in before if (tasks / f"{t}" / "wchan").read_text() == "ep_poll"}
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


REPLICA: tuple[Fault, ...] = (
    Fault("model stuck", model_stuck, 60),
    Fault("one of two model replicas stopped", one_of_two_stopped, 2, embedders=2),
)
