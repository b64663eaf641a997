"""Every metric of raylens, declared once. docs/operations.md has a table that is made from these.

What Serve has itself, such as the starts of replicas, is not counted again here.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from deployments.errors import Internal, RaylensError
from deployments.metrics.kinds import Counter, Gauge, Histogram, Metric

# From an answer out of the cache to the longest that a request may take.
_REQUEST_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
    *(0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30),
)
_STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MODALITY = ("modality",)
# What refuses requests: settings, a key's own limits, the model's queue, and HAProxy in front.
LIMITS = (
    *("max_wait_s", "max_queued_items", "max_inflight_bytes"),
    *("concurrency", "rate", "forwarded", "model", "front"),
)


class Metrics:
    """The metrics of one replica; iterating gives all that are its attributes."""

    def __iter__(self) -> Iterator[Metric]:
        yield from (value for value in vars(self).values() if isinstance(value, Metric))


class IngressMetrics(Metrics):
    """What an ingress replica counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "raylens_requests",
            "Requests that were answered, except health checks. `outcome` is `ok` or the code of "
            "an error; `dialect` is that of the endpoint, or `handle`.",
            ("endpoint", "dialect", "outcome"),
        )
        self.request_seconds = Histogram(
            "raylens_request_seconds", "How long each request took.", _REQUEST_S, ("endpoint",)
        )
        self.refusals = Counter(
            "raylens_refusals",
            "Requests that were refused because too much was waiting, by the limit that refused "
            "them; `front` is HAProxy, whose refusals are not among the requests.",
            ("limit",),
            known=LIMITS,
        )
        self.items = Counter(
            "raylens_items",
            "Images and texts of requests. `source` is how an item came: `path`, `url`, "
            "`base64`, `data_uri`, `bytes`, `text`, or `unreadable`.",
            ("source", "outcome"),
        )
        self.fetched_bytes = Counter(
            "raylens_fetched_bytes", "Bytes of images that were fetched by URL."
        )
        self.stage_seconds = Histogram(
            "raylens_stage_seconds",
            "Time by stage: `fetch` of each file or URL, `decode` of each image, `tokenise` of the "
            "texts of a stack, `queue` and `model` of each stack.",
            _STAGE_S,
            ("stage",),
        )
        self.cache_lookups = Counter(
            "raylens_cache_lookups",
            "Items by whether the model had to run: `hit` in the cache, `shared` with a request "
            "that had it under way, `duplicate` in its own request, or `miss`.",
            ("result",),
            known=("hit", "shared", "duplicate", "miss"),
        )
        self.predicted_wait_seconds = Histogram(
            "raylens_predicted_wait_seconds",
            "How long admission expected each request to take, when its items were known.",
            _REQUEST_S,
        )
        self.wait_seconds = Histogram(
            "raylens_wait_seconds",
            "How long each request took from when its items were known.",
            _REQUEST_S,
        )
        self.backlog_items = Gauge(
            "raylens_backlog_items", "Items that were accepted and are not answered yet."
        )
        self.backlog_seconds = Gauge(
            "raylens_backlog_seconds", "How long a newcomer would wait, as admission sees it."
        )
        self.retries = Counter(
            "raylens_retries",
            "Calls of the model that were made again: `replica_died`, `wrong_model` (another "
            "replica was asked), or `model_replaced` (the request began again).",
            ("cause",),
            known=("replica_died", "wrong_model", "model_replaced"),
        )

    def answered(
        self, endpoint: str, dialect: str, error: RaylensError | None, seconds: float | None = None
    ) -> None:
        """Counts a request, and the time that it took if it reached an endpoint."""
        self.requests.add(1, endpoint, dialect, error.code if error else "ok")
        if seconds is not None:
            self.request_seconds.observe(seconds, endpoint)
        if error is not None and error.limit is not None:
            self.refusals.add(1, error.limit)

    @contextmanager
    def answering(self, method: str) -> Iterator[None]:
        """Counts a request that came through a handle, and is answered inside. One whose caller has
        left is not answered."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            failure = error if isinstance(error, RaylensError) else Internal("")
            self.answered(method, "handle", failure, time.monotonic() - began)
            raise
        self.answered(method, "handle", None, time.monotonic() - began)


class EmbedderMetrics(Metrics):
    """What a model replica counts."""

    def __init__(self) -> None:
        self.batch_size = Histogram(
            "raylens_batch_size",
            "Items in each forward pass of the model.",
            _BATCH_ITEMS,
            _MODALITY,
        )
        self.batch_seconds = Histogram(
            "raylens_batch_seconds", "How long each forward pass took.", _STAGE_S, _MODALITY
        )
        self.queue_items = Gauge(
            "raylens_queue_items", "Items that wait for the model or are in it.", _MODALITY
        )


class ReplicaMetrics(Metrics):
    """What every replica reports of itself. Threads, tasks and files stay flat unless they leak."""

    def __init__(self) -> None:
        """To be made when the replica begins to start."""
        self._began = time.monotonic()
        self.started_timestamp_seconds = Gauge(
            "raylens_started_timestamp_seconds",
            "When the replica was ready, in seconds since 1970.",
        )
        self.start_seconds = Gauge(
            "raylens_start_seconds",
            "How long the replica took to start, from the first line of its own code.",
        )
        process = psutil.Process()
        self.threads = Gauge("raylens_threads", "Threads of the replica's process.")
        self.threads.watch(process.num_threads)
        self.python_threads = Gauge("raylens_python_threads", "Threads that Python code started.")
        self.python_threads.watch(threading.active_count)
        self.tasks = Gauge("raylens_tasks", "asyncio tasks on the replica's loop.")
        self.tasks.watch(lambda: len(asyncio.all_tasks()))
        self.open_files = Gauge("raylens_open_files", "Open file descriptors.")
        self.open_files.watch(process.num_fds)

    def started(self) -> None:
        """To be called when it is ready."""
        at, took = time.time(), time.monotonic() - self._began
        self.started_timestamp_seconds.watch(lambda: at)
        self.start_seconds.watch(lambda: took)
