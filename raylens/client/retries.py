"""Sends a request again where that may help: the service is busy, restarting or out of reach."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from raylens.client.errors import ApiError

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_MOST_ASKED_S = 60.0


async def with_retries(
    send: Callable[[], Awaitable[T]],
    *,
    retries: int,
    refused: Callable[[], None] = lambda: None,
) -> T:
    """The answer to `send`, called at most 1 + `retries` times.

    Waits as long as the service asks, or twice as long each time up to 15 s, and a random part
    more, so that many clients do not come back together. A service that asks for more than a
    minute is not waited for. `refused` is called for every 429.

    Embedding has no side effects, so that a request whose answer was lost may be sent again.
    """
    for attempt in range(retries + 1):
        try:
            return await send()
        except ApiError as error:
            if error.status == 429:
                refused()
            if error.status not in (429, 503) or attempt == retries:
                raise
            wait_s = error.retry_after_s
            if wait_s is not None and wait_s > _MOST_ASKED_S:
                raise
        except ConnectionError:
            if attempt == retries:
                raise
            wait_s = None
        if wait_s is None:
            wait_s = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
        await asyncio.sleep(wait_s * random.uniform(1.0, 1.3))  # noqa: S311  (no secret)
    raise AssertionError("unreachable")
