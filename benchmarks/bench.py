"""The process that loads the servers, and what a server gave and took in one turn of it."""

from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from typing import Any

from benchmarks.load import Run, closed_loop, open_loop, run_loop
from benchmarks.scenarios import Scenario, requests
from benchmarks.servers import Server

WARM_UP_S = 2.0


@dataclass
class Measured:
    """One turn of one server."""

    run: Run
    cpu_ms_per_image: float
    """Processor time of all of the server's processes."""
    memory_mb: float
    """In the middle of the turn."""


class Bench:
    """Loads one server at a time, from a process of its own that does nothing in between."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        """`seconds` are those of a turn; `say` is told whose turn it is."""
        self.seconds = seconds
        self.say = say
        self._load = futures.ProcessPoolExecutor(1, get_context("spawn"))

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exception: object) -> None:
        self._load.shutdown()

    def close_loop(self, server: Server, scenario: Scenario) -> Measured:
        """A turn of callers who wait for their answers. Raises RuntimeError if they get none."""
        self.say(f"{scenario.name}: {server.name}")
        seconds = self.seconds * (2 if scenario.is_large else 1)
        measured = self._turn(closed_loop, server, scenario, seconds, callers=scenario.callers)
        if not measured.run.images:
            raise RuntimeError(
                f"{server.name} answered too little to count: {dict(measured.run.errors)}"
            )
        return measured

    def open_loop(self, server: Server, scenario: Scenario, per_second: float) -> Measured:
        """A turn of so many requests a second, for long enough to see slow ones among them."""
        self.say(f"{per_second:.0f} requests/s: {server.name}")
        seconds = max(self.seconds, min(300 / per_second, 4 * self.seconds))
        return self._turn(open_loop, server, scenario, seconds, per_second=per_second)

    def _turn(
        self,
        loop: Callable[..., Any],
        server: Server,
        scenario: Scenario,
        seconds: float,
        **options: Any,
    ) -> Measured:
        sent = requests(scenario, server)
        cpu_s = server.cpu_s()
        turn = self._load.submit(
            run_loop, loop, sent, seconds=seconds, warm_up_s=WARM_UP_S, **options
        )
        futures.wait([turn], timeout=WARM_UP_S + seconds / 2)
        memory = server.memory_mb()
        run = turn.result()
        cpu_ms = 1e3 * (server.cpu_s() - cpu_s)
        return Measured(run, cpu_ms / max(run.answered, 1), memory)


def file_name(date: datetime, *parts: str) -> str:
    """Without its ending, and told apart by `parts`: a quick run spares the results of a whole."""
    return "-".join([f"{date:%Y-%m-%d}", *filter(None, parts)]).replace(", ", "-").replace(" ", "-")
