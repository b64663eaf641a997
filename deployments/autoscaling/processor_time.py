"""How much processor time a replica uses, with the processes that it has started."""

import contextlib

import psutil

from deployments.threads import thread_count


class ProcessorTime:
    """What the ingress reports for its policy: its own time and that of its decode workers."""

    def __init__(self, reserved: float) -> None:
        """`reserved` is how many processors Ray reserves for the replica. Without any, all that the
        process may use count as its own."""
        self._processors = reserved or float(thread_count("auto"))
        self._own = psutil.Process()
        self._ended_s = 0.0
        self._seen: dict[psutil.Process, float] = {}

    def stats(self) -> dict[str, float]:
        """Processor seconds since the start, which never fall, and how many processors there are.

        Takes some milliseconds, so not on an event loop.
        """
        seen = {}
        for process in [self._own, *self._own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it may end at any moment
                times = process.cpu_times()
                seen[process] = times.user + times.system
        self._ended_s += sum(s for process, s in self._seen.items() if process not in seen)
        self._seen = seen
        return {
            "processor_s": self._ended_s + sum(seen.values()),
            "processors": self._processors,
        }
