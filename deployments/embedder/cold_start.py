"""A model without replicas, which the first request wakes up. Knows nothing of Ray."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from deployments.errors import RaylensError, Unavailable

logger = logging.getLogger("ray.serve")

# How long a replica takes to start, until that has been measured.
START_S = 10.0
# After this long, the start has failed. Models of billions of weights take minutes.
START_LIMIT_S = 300.0


class ColdStart:
    """Whether a model has no replicas now, and what its first callers get then.

    Serve starts a replica as soon as a call waits for one.
    """

    def __init__(
        self,
        cold_start: Literal["none", "wait", "refuse"] = "none",
        replicas: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`cold_start` is the setting: with `none`, replicas that are missing have died.
        `replicas` tells how many there are, or None while that is unknown."""
        self._cold_start = cold_start
        self._replicas = replicas
        self._start_s = START_S
        self._failed = False
        self._waking: asyncio.Task[None] | None = None

    def is_asleep(self) -> bool:
        """Whether there is no replica because none has been needed, as far as is known."""
        return self._has_none() and not self._failed

    def started(self) -> None:
        """To be called when the model has answered."""
        self._failed = False

    def wake(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Has a replica started, if there is none, by `call`, a call of the model."""
        if self._has_none() and (self._waking is None or self._waking.done()):
            self._waking = asyncio.create_task(self._wake(call))

    def refusal(self, call: Callable[[], Awaitable[Any]]) -> RaylensError | None:
        """Unavailable if there is no replica and callers are not to wait for one. Then `call`, a
        call of the model, wakes it up."""
        if self._cold_start != "refuse" or not self._has_none():
            return None
        self.wake(call)
        why = "has not started yet" if self._failed else "has been idle and is being started"
        return Unavailable(
            f"The model {why}; retry.", retry_after_s=max(1, math.ceil(self._start_s))
        )

    def _has_none(self) -> bool:
        return self._cold_start != "none" and self._replicas() == 0

    async def _wake(self, call: Callable[[], Awaitable[Any]]) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await call()
        except Exception as error:  # the next caller tries again
            self._failed = True
            logger.warning(f"The model could not be started: {type(error).__name__}: {error}")
        else:
            self.started()
            self._start_s = asyncio.get_running_loop().time() - began
