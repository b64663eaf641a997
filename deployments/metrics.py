"""Counters and gauges. To be made in a replica, where Serve adds deployment and replica tags."""

import asyncio
import threading

import psutil
from ray.serve.metrics import Counter, Gauge


class ProcessGauges:
    """Threads, tasks and open files of this replica; each stays flat unless something leaks."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._threads = Gauge("raylens_threads", description="Threads of the replica's process.")
        self._python_threads = Gauge(
            "raylens_python_threads", description="Threads that Python code started."
        )
        self._tasks = Gauge("raylens_tasks", description="asyncio tasks on the replica's loop.")
        self._files = Gauge("raylens_open_files", description="Open file descriptors.")

    def record(self) -> None:
        """Takes a reading; call it on the replica's event loop."""
        self._threads.set(self._process.num_threads())
        self._python_threads.set(threading.active_count())
        self._tasks.set(len(asyncio.all_tasks()))
        self._files.set(self._process.num_fds())


class ItemCounter:
    """Items answered, by outcome: `ok` or an error code."""

    def __init__(self) -> None:
        self._items = Counter(
            "raylens_items", description="Items answered, by outcome.", tag_keys=("outcome",)
        )

    def count(self, outcome: str, number: int) -> None:
        if number:
            self._items.inc(number, tags={"outcome": outcome})


class BatchCounter:
    """Batches that the model ran and the items in them; their quotient is the batch size.

    Serve's own `serve_actual_batch_size` counts the same in coarse buckets.
    """

    def __init__(self) -> None:
        keys = ("modality",)
        self._batches = Counter(
            "raylens_batches", description="Forward passes of the model.", tag_keys=keys
        )
        self._items = Counter(
            "raylens_batch_items", description="Items in those forward passes.", tag_keys=keys
        )

    def count(self, modality: str, items: int) -> None:
        self._batches.inc(tags={"modality": modality})
        self._items.inc(items, tags={"modality": modality})
