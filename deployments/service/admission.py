"""Whether a request would be answered in time, judged by the work that waits already."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from deployments.errors import Overloaded, RateLimited, RaylensError
from deployments.fairness import TENANT_PART, TenantCount
from deployments.metrics.declared import IngressMetrics
from deployments.service.job import Job, ModelClient, is_text
from deployments.service.loader import ImageLoader
from deployments.settings import Limits

logger = logging.getLogger("ray.serve")

# `TenantCount` counts whole units.
_PER_S = 1_000_000
# A large request takes turns with others, which wait for this many of its items at most.
_MOST_AHEAD = 64
# The least time between two lines in the log.
_EVERY_S = 1.0
_IN_FRONT = Overloaded("The answer would take too long; retry after a pause.", retry_after_s=1)


class Admission:
    """Lets requests in, or refuses them at once. The limits are of this ingress replica, and know
    of the others' work by what the models tell."""

    def __init__(
        self,
        limits: Limits,
        *,
        models: Sequence[ModelClient],
        loader: ImageLoader,
        metrics: IngressMetrics,
    ) -> None:
        self._queues = {m: _Queue(m, loader, max_wait_s=limits.max_wait_s) for m in models}
        self._items = TenantCount(limits.max_queued_items)
        self._item_bytes = limits.max_inflight_bytes / limits.max_queued_items
        self._metrics = metrics
        self._log = _RefusalLog()
        metrics.backlog_items.watch(lambda: self._items.total)
        metrics.backlog_seconds.watch(lambda: max(q.wait_s for q in self._queues.values()))

    @property
    def requests_per_s(self) -> float:
        """How many requests like the last ones all models can answer; 0 while unknown."""
        return sum(1 / queue.request_s for queue in self._queues.values() if queue.request_s)

    @contextmanager
    def arriving(self, tenant: str | None) -> Iterator[ExitStack]:
        """To be entered before a request's body is read. It counts as an average one, until the
        yielded stack is closed because its items count.

        Raises Overloaded or RateLimited if no model could answer in time.
        """
        # A model that is asked wakes up, and of several it is not known yet which is wanted.
        asks = len(self._queues) == 1
        queues = self._queues.values()
        refusals = [r for queue in queues if (r := queue.refusal(tenant, asks_model=asks))]
        if len(refusals) == len(self._queues):
            self._log.note(1, refusals[0])
            self._tell_models(1)
            raise refusals[0]
        with ExitStack() as held:
            for queue in self._queues.values():
                held.enter_context(queue.hold(tenant, queue.request_s))
            yield held

    def refused_in_front(self, number: int) -> None:
        """Counts and logs requests that HAProxy has refused."""
        if number:
            self._metrics.refusals.add(number, "front")
            self._log.note(number, _IN_FRONT)
            self._tell_models(number)

    def _tell_models(self, refused: int) -> None:
        """Of requests that were refused before it was known which model they are for."""
        for queue in self._queues.values():
            queue.refused(refused / len(self._queues))

    @contextmanager
    def admitted(self, job: Job) -> Iterator[None]:
        """Counts a job's items while inside. Raises Overloaded or RateLimited."""
        # Items that are errors already need no admission.
        good = [slot for slot in job.slots if not isinstance(slot.item, RaylensError)]
        texts = sum(map(is_text, good))
        tenant, arrival = job.context.tenant, job.context.arrival
        queue = self._queues[job.model]
        if arrival is not None:
            arrival.close()
        elif refusal := queue.refusal(tenant):  # came through a handle
            queue.refused(1)
            raise refusal
        # Several vectors for each item may take far more memory than its request did.
        each = 1
        if job.card.vectors_per_image is not None:
            each = math.ceil(job.card.vectors_bytes / self._item_bytes)
        self._items.check(
            each * len(good),
            tenant,
            in_all="Too much is waiting already; retry after a pause.",
            of_key="Too many items of this key are waiting already; retry after a pause.",
            limit="max_queued_items",
        )
        self._items.add(each * len(good), tenant)
        try:
            with queue.hold(tenant, queue.seconds(images=len(good) - texts, texts=texts)):
                self._metrics.predicted_wait_seconds.observe(queue.wait_s)
                began = time.monotonic()
                yield
                self._metrics.wait_seconds.observe(time.monotonic() - began)
        finally:
            self._items.add(-each * len(good), tenant)


class _Queue:
    """The work that has been accepted for one model and not been done, in seconds."""

    def __init__(self, model: ModelClient, loader: ImageLoader, *, max_wait_s: float) -> None:
        self._model = model
        self._loader = loader
        self._max_wait_s = max_wait_s
        self._work = TenantCount(round(max_wait_s * _PER_S))
        self._request_s = 0.0
        self._request_items = 1.0

    @property
    def request_s(self) -> float:
        """Work in a request, on a recent average."""
        return self._request_s or self._image_s

    @property
    def _image_s(self) -> float:
        """Decoding and the model work side by side, so the slower of the two counts."""
        return max(self._model.item_s(), self._loader.image_s)

    def seconds(self, *, images: int, texts: int) -> float:
        """How long others wait for a request with these. Large ones take turns with others, which
        therefore never wait too long for one alone."""
        text_s = self._model.item_s(text=True)
        work_s = min(images, _MOST_AHEAD) * self._image_s + min(texts, _MOST_AHEAD) * text_s
        self._request_s = self.request_s + 0.1 * (work_s - self.request_s)
        self._request_items += 0.1 * (images + texts - self._request_items)
        return min(work_s, TENANT_PART * self._max_wait_s)

    def refused(self, requests: float) -> None:
        """Tells the model of requests with as many items as the last ones, on average."""
        self._model.refused(requests * self._request_items)

    @property
    def wait_s(self) -> float:
        """Seconds until all is done that waits, here and of other ingress replicas."""
        return self._work.total / _PER_S + self._model.others_s

    def refusal(self, tenant: str | None, *, asks_model: bool = True) -> RaylensError | None:
        """Overloaded if a newcomer would wait longer than `max_wait_s`, for other ingress replicas'
        work too; RateLimited if this tenant's work alone takes longer than its part of that; or
        what the model itself refuses requests for, if it is asked."""
        if asks_model and (refusal := self._model.refusal()):
            return refusal
        others_s = self._model.others_s
        wait_s = self.wait_s
        part = max(0.0, 1 - others_s / self._max_wait_s)
        again_s = math.ceil(wait_s)
        match self._work.refusal(0, tenant, part=part):
            case "all":
                message = f"The answer would take {wait_s:.0f} s; retry after a pause."
                return Overloaded(message, retry_after_s=again_s, limit="max_wait_s")
            case "tenant":
                message = "Too much of this key's work is waiting already; retry after a pause."
                return RateLimited(message, retry_after_s=again_s, limit="max_wait_s")
        return None

    @contextmanager
    def hold(self, tenant: str | None, seconds: float) -> Iterator[None]:
        """Counts so much work while inside."""
        work = round(seconds * _PER_S)
        self._work.add(work, tenant)
        try:
            yield
        finally:
            self._work.add(-work, tenant)


class _RefusalLog:
    """One line a second at most, however many requests are refused."""

    def __init__(self) -> None:
        self._refused = 0

    def note(self, number: int, error: RaylensError) -> None:
        if not self._refused:
            asyncio.get_running_loop().call_later(_EVERY_S, self._write, error.message)
        self._refused += number

    def _write(self, first: str) -> None:
        logger.warning(f"{self._refused} request(s) refused within a second; the first: {first}")
        self._refused = 0
