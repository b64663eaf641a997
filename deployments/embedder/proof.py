"""Whether the model works: by the batch that it ran last, or else by a test of its own.

A plain object: it knows neither Ray nor any engine.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import numpy as np

from deployments.models.engines.engine import EngineError
from deployments.wire import NoMemoryError, Vectors

logger = logging.getLogger("ray.serve")

# A model that has succeeded this recently is ready, so frequent health checks cost nothing.
RECENT_S = 5.0


class Proof:
    """Judges the model by every batch, and tests it when there is a doubt."""

    def __init__(self, prove: Callable[[], Awaitable[None]]) -> None:
        """`prove` raises if the model does not give the vectors that it should."""
        self._prove = prove
        self._last_success = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._failure: EngineError | None = None

    async def judge(self, batch: Awaitable[Vectors]) -> Vectors:
        """The batch's vectors. Raises what the batch raises.

        A batch that fails, or that has not a single finite vector, is a doubt and not a failure:
        there may be images that no model of this precision can embed.
        """
        try:
            vectors = await batch
        except (ValueError, NoMemoryError):  # refused
            raise
        except Exception:
            self._doubt()
            raise
        if np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1).any():
            self._succeed()
        else:
            self._doubt()
        return vectors

    async def ready(self) -> None:
        """Tests the model, unless it has succeeded within RECENT_S.

        Raises EngineError if it fails, and MemoryError or NoMemoryError if it cannot be tested.
        """
        if asyncio.get_running_loop().time() - self._last_success > RECENT_S:
            # Shared, and not cancelled with a health check that gives up: the next one needs it.
            await asyncio.shield(self._test())

    def check(self) -> None:
        """Raises EngineError if the model has failed the last test, and has not succeeded since."""
        if self._failure is not None:
            raise self._failure

    def _doubt(self) -> None:
        self._last_success = -math.inf
        self._test()

    def _test(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._task

    async def _run(self) -> None:
        try:
            await self._prove()
        except (MemoryError, NoMemoryError) as error:  # says nothing about the model
            logger.warning(f"The model could not be tested: {type(error).__name__}: {error}")
            raise
        except Exception as error:
            self._failure = _as_engine_error(error)
            logger.error(f"The model fails its own test: {self._failure}.")
            raise self._failure from None
        self._succeed()

    def _succeed(self) -> None:
        self._last_success = asyncio.get_running_loop().time()
        self._failure = None


def _as_engine_error(error: Exception) -> EngineError:
    """Torch's and OpenVINO's own errors mean nothing to a process that has neither."""
    if isinstance(error, EngineError):
        return error
    first_line, _, _ = str(error).partition("\n")
    return EngineError(f"{type(error).__name__}: {first_line}")
