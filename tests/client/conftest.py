"""The whole HTTP layer on a port of loopback, with fake models behind it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn

from deployments.api.routes import Api
from raylens import Client
from raylens.cluster import free_port
from tests.fakes import TEXT, FakeModel, service
from tests.until import until

Serve = Callable[..., AbstractContextManager[str]]


@contextmanager
def running(app: Any, *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The address of an ASGI application."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan=lifespan)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serves fake models, and files under the folder `served`; yields the address."""
    roots = tmp_path / "served"
    roots.mkdir()

    @contextmanager
    def start(model: FakeModel | None = None, *more: FakeModel, **sections: Any) -> Iterator[str]:
        with running(Api(service(model, *more, roots=[roots], **sections)).app()) as url:
            yield url

    return start


@pytest.fixture
def client(serve: Serve) -> Iterator[Client]:
    """A client of a service with a text tower."""
    with serve(FakeModel(text=TEXT)) as url, Client(url) as client:
        yield client
