"""Forwards requests that another service handles.

The operator names its address, so it need not be public, as those of callers' images must be.
"""

import asyncio
import logging

import aiohttp
import orjson

from deployments.errors import FetchBadGateway, FetchTimeout

logger = logging.getLogger("ray.serve")

MAX_ANSWER_BYTES = 16 * 1024 * 1024
# At once: each holds its form meanwhile, and its answer.
MOST_FORWARDED = 32


async def posted(url: str, form: aiohttp.FormData, deadline: float) -> bytes:
    """The JSON with which `url` answers a form before `deadline`, on the loop's clock.

    Raises FetchTimeout, or FetchBadGateway for a status other than 200, a redirect, more than
    MAX_ANSWER_BYTES, or anything but JSON.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await _posted(url, form)
    except TimeoutError:
        logger.warning(f"{url} takes too long.")
        raise FetchTimeout("The service that this is forwarded to takes too long.") from None
    except (aiohttp.ClientError, ValueError) as error:
        logger.warning(f"{url} fails: {type(error).__name__}: {error}")
        raise FetchBadGateway("The service that this is forwarded to fails.") from None


async def _posted(url: str, form: aiohttp.FormData) -> bytes:
    """Raises ValueError for an answer that is no use."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(
            url, data=form, allow_redirects=False, headers={"Accept-Encoding": "identity"}
        ) as response,
    ):
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    orjson.loads(body)
    return bytes(body)
