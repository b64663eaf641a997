"""Whether a request would be answered in time, judged by the work that waits already."""

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.errors import Overloaded, RateLimited, RaylensError
from deployments.fairness import TenantCount
from deployments.service.job import ModelClient
from deployments.service.loader import ImageLoader

logger = logging.getLogger("ray.serve")

# `TenantCount` counts whole units.
_PER_S = 1_000_000
# A large request takes turns with others, which wait for this many of its items at most.
_MOST_AHEAD = 64
# The least time between two lines in the log.
_EVERY_S = 1.0


class Admission:
    """The work that has been accepted for one model and not been done, in seconds.

    An item takes as long as the slower of decoding and the model, which work side by side.
    """

    def __init__(self, model: ModelClient, loader: ImageLoader, *, max_wait_s: float) -> None:
        self._model = model
        self._loader = loader
        self._max_wait_s = max_wait_s
        self._work = TenantCount(round(max_wait_s * _PER_S))

    def refusal(self, tenant: str | None) -> RaylensError | None:
        """Overloaded if a newcomer would wait longer than `max_wait_s`, for other ingress replicas'
        work too; RateLimited if this tenant's work alone takes longer than its part of that."""
        others_s = self._model.others_s
        wait_s = self._work.held / _PER_S + others_s
        try:
            self._work.check(
                0,
                tenant,
                in_all=f"The answer would take {wait_s:.0f} s; retry after a pause.",
                of_key="Too much of this key's work is waiting already; retry after a pause.",
                part=max(0.0, 1 - others_s / self._max_wait_s),
                retry_after_s=math.ceil(wait_s),
            )
        except (Overloaded, RateLimited) as refusal:
            return refusal
        return None

    @contextmanager
    def hold(self, tenant: str | None, *, images: int = 0, texts: int = 0) -> Iterator[None]:
        """Counts these items while inside."""
        image_s = max(self._model.item_s(), self._loader.image_s)
        text_s = self._model.item_s(text=True)
        seconds = min(images, _MOST_AHEAD) * image_s + min(texts, _MOST_AHEAD) * text_s
        work = round(seconds * _PER_S)
        self._work.add(work, tenant)
        try:
            yield
        finally:
            self._work.add(-work, tenant)


class RefusalLog:
    """One line a second at most, however many requests are refused."""

    def __init__(self) -> None:
        self._refused = 0

    def note(self, error: RaylensError) -> None:
        self._refused += 1
        if self._refused == 1:
            asyncio.get_running_loop().call_later(_EVERY_S, self._write, error.message)

    def _write(self, first: str) -> None:
        logger.warning(f"{self._refused} requests were refused within a second. {first}")
        self._refused = 0
