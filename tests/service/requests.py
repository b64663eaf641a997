"""A request to the real service, and what came of it: vectors, errors, no tasks left over."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.errors import RaylensError
from deployments.items import BytesItem, Parsed
from deployments.service.embedding import Embedded, EmbeddingService
from deployments.service.job import Context, ItemGroup, Options

CORRUPT = BytesItem(b"\xff\xd8\xff\xe0 broken off")


async def embed(
    opened: EmbeddingService,
    items: Sequence[Parsed],
    deadline: float | None = None,
    tenant: str | None = None,
    **options: Any,
) -> Embedded:
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + 10
    context = Context(None, deadline, tenant)
    return await opened.embed([ItemGroup("input", items)], context, Options(**options))


async def settled(before: set[asyncio.Task[Any]]) -> None:
    """Fails unless all tasks but those in `before` end within a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def vectors(embedded: Embedded) -> np.ndarray[Any, Any]:
    for row in embedded.rows:
        if isinstance(row, RaylensError):
            raise row
    return np.stack(embedded.rows)  # type: ignore[arg-type]


def errors(embedded: Embedded) -> list[RaylensError | None]:
    return [row if isinstance(row, RaylensError) else None for row in embedded.rows]
