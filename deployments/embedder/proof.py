"""Whether the model works: by the vectors that it gave last, or else by a test of its own.

A plain object: it knows neither Ray nor any engine.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import numpy as np

from deployments.models.engines.engine import EngineError
from deployments.wire import Vectors

logger = logging.getLogger("ray.serve")

# A model that has succeeded this recently is ready, so frequent health checks cost nothing.
RECENT_S = 5.0


class Proof:
    """Takes note of every batch, and tests the model when there is a doubt."""

    def __init__(self, prove: Callable[[], Awaitable[None]]) -> None:
        """`prove` raises EngineError if the model does not give the vectors that it should."""
        self._prove = prove
        self._last_success = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._failure: EngineError | None = None

    def note(self, vectors: Vectors) -> None:
        """A batch without a single finite vector is a doubt, not a failure: there may be images
        that no model of this precision can embed."""
        if np.isfinite(vectors).all(axis=1).any():
            self._succeed()
        else:
            self._last_success = -math.inf
            self._test()

    async def ready(self) -> None:
        """Tests the model, unless it has succeeded within RECENT_S. Raises what the test raises."""
        if asyncio.get_running_loop().time() - self._last_success > RECENT_S:
            # Shared, and not cancelled with a health check that gives up: the next one needs it.
            await asyncio.shield(self._test())

    def check(self) -> None:
        """Raises EngineError if the model has failed the last test, and has not succeeded since."""
        if self._failure is not None:
            raise self._failure

    def _test(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._task

    async def _run(self) -> None:
        try:
            await self._prove()
        except EngineError as error:
            self._failure = error
            logger.error(f"The model fails its own test: {error}.")
            raise
        self._succeed()

    def _succeed(self) -> None:
        self._last_success = asyncio.get_running_loop().time()
        self._failure = None
