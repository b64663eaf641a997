"""Reaches the service through a deployment handle, from another Ray job."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from raylens.client.errors import ApiError
from raylens.client.items import SentItem
from raylens.client.transport import EmbedOptions, Ranked, Row


class HandleTransport:
    """Calls of the ingress's methods."""

    def __init__(self, handle: Any, *, timeout_s: float) -> None:
        self._handle = handle
        self._timeout_s = timeout_s

    async def embed(self, items: Sequence[SentItem], options: EmbedOptions) -> list[Row]:
        rows = await self._call("embed", list(items), **vars(options))
        return [row if isinstance(row, np.ndarray) else api_error(row) for row in rows]

    async def classify(
        self,
        items: Sequence[SentItem],
        labels: Sequence[str],
        *,
        template: str | None,
        model: str | None,
    ) -> list[Ranked]:
        options = {} if template is None else {"template": template}
        ranked: list[Ranked] = await self._call(
            "classify", list(items), list(labels), model=model, **options
        )
        return ranked

    async def models(self) -> dict[str, Any]:
        return dict(await self._call("info"))

    async def ready(self) -> bool:
        try:
            return bool(await self._call("ready"))
        except (ConnectionError, TimeoutError):
            return False

    async def close(self) -> None: ...

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            async with asyncio.timeout(self._timeout_s):
                return await getattr(self._handle, method).remote(*args, **options)
        except TimeoutError:
            raise TimeoutError(f"the service did not answer within {self._timeout_s:g} s") from None
        except RayTaskError as error:
            if not hasattr(error.cause, "code"):
                raise
            raise api_error(error.cause) from None
        except (RayError, RayServeException) as error:
            raise ConnectionError(f"the service cannot be reached ({error})") from None


def api_error(error: Any) -> ApiError:
    """What HTTP callers get for one of the service's errors."""
    return ApiError(
        error.message,
        code=error.code,
        status=error.status,
        param=error.param,
        items={index: api_error(of_item) for index, of_item in error.items},
        retry_after_s=error.retry_after_s,
    )
