"""Batches in parts that fit into the GPU's memory. Knows nothing of torch."""

import logging
import sys
import time
from collections.abc import Awaitable, Callable

import numpy as np

from deployments.wire import NoMemoryError, Stack, Vectors

logger = logging.getLogger("ray.serve")

# How long smaller batches are made after one that did not fit. Others may use the GPU as well, so
# it is tried again, and each try that fails takes as long as a batch.
SMALLER_FOR_S = 60.0


class InParts:
    """A tower that takes batches of any size: one that does not fit is halved until it does."""

    def __init__(
        self,
        run: Callable[[Stack], Awaitable[Vectors]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run` raises NoMemoryError if the memory does not suffice."""
        self._run = run
        self._clock = clock
        self._fitting = sys.maxsize
        self._until = 0.0

    async def encode(self, stack: Stack) -> Vectors:
        """N >= 1 items to (N, D). Raises NoMemoryError if not even one of them fits."""
        if self._clock() > self._until:
            self._fitting = sys.maxsize
        parts: list[Vectors] = []
        done = 0
        while done < len(stack):
            part = stack[done : done + self._fitting]
            try:
                parts.append(await self._run(part))
            except NoMemoryError:
                if len(part) == 1:
                    raise
                self._halve(len(part))
            else:
                done += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _halve(self, size: int) -> None:
        self._fitting = min(self._fitting, size // 2)
        self._until = self._clock() + SMALLER_FOR_S
        logger.warning(
            f"The GPU has no memory for a batch of {size}, so batches have at most "
            f"{self._fitting} for {SMALLER_FOR_S:.0f} s. If this goes on, lower "
            "model.max_batch_size, or model.max_text_batch_size for texts."
        )
