"""A client of the whole HTTP layer, with fake models behind it, and a photo in its image root."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.api.fence import Fence
from deployments.api.routes import Api
from tests.fakes import FakeModel, service

Connect = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    """Opens a client of the whole HTTP layer, with fake models behind it."""

    @asynccontextmanager
    async def open_client(
        model: FakeModel | None = None, *more: FakeModel, **sections: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = Fence(Api(service(model, *more, roots=[tmp_path], **sections)).app())
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    return open_client


@pytest.fixture
def photo(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    """A JPEG under the image root."""
    path = tmp_path / "tom.jpg"
    path.write_bytes(jpeg(1))
    return path
