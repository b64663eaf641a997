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
        self._waking: asyncio.Task[None] | None = None

    def is_asleep(self) -> bool:
        """Whether there is no replica because none has been needed."""
        return self._cold_start != "none" and self._replicas() == 0

    def refusal(self, call: Callable[[], Awaitable[Any]]) -> RaylensError | None:
        """Unavailable if there is no replica and callers are not to wait for one. Then `call`, of
        the model, wakes it up."""
        if self._cold_start != "refuse" or not self.is_asleep():
            return None
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._wake(call))
        return Unavailable(
            "The model has been idle and is being started; retry.",
            retry_after_s=max(1, math.ceil(self._start_s)),
        )

    async def _wake(self, call: Callable[[], Awaitable[Any]]) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await call()
        except Exception as error:  # the next caller tries again
            logger.warning(f"The model could not be started: {type(error).__name__}: {error}")
        else:
            self._start_s = asyncio.get_running_loop().time() - began
