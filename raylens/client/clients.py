"""`raylens.Client`, `raylens.AsyncClient` and `raylens.connect()`."""

import os
from pathlib import Path
from typing import Any

from raylens.client.blocking import Methods
from raylens.client.handle import HandleTransport
from raylens.client.http import HttpTransport
from raylens.client.methods import AsyncMethods


class AsyncClient(AsyncMethods):
    """As `Client`, for asyncio: its methods are awaited.

    ```python
    async with raylens.AsyncClient("http://127.0.0.1:8000") as client:
        vectors = await client.embed(["a.jpg", "https://example.org/b.jpg"])
    ```
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_concurrency: int = 8,
        retries: int = 3,
    ) -> None:
        """Raises ValueError for what is not a URL or not a key."""
        transport = HttpTransport(
            url, api_key=api_key, timeout_s=timeout_s, max_concurrency=max_concurrency
        )
        super().__init__(transport, max_concurrency=max_concurrency, retries=retries)


class Client(Methods):
    """A client of the service at `url`, for any thread, and beside a running event loop too.

    ```python
    with raylens.Client("http://127.0.0.1:8000") as client:
        vectors = client.embed(["a.jpg", "https://example.org/b.jpg"])
    ```

    Without `url` and `api_key`, they come from RAYLENS_URL and RAYLENS_API_KEY. A request may take
    `timeout_s`; at most `max_concurrency` are under way at once; each is repeated up to `retries`
    times if the service is busy or out of reach.

    Wherever items are taken, an item is a local file's path (a `pathlib.Path` or a string), which
    is read here; an http(s) URL, which the service fetches; a data URI; an image's bytes; a
    `PIL.Image`; a uint8 array (H, W, 3) of RGB; or one of the API's objects, such as
    `{"path": …}` for a file on the service's machine. Any other string is a text. Pass strings of
    strangers to `embed_text` or as `{"text": …}`, because they might name a file.

    All methods raise `raylens.ApiError`; ConnectionError if the service cannot be reached;
    TimeoutError if it does not answer; and for items OSError if a file cannot be read, ValueError
    or TypeError for what is not an item.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_concurrency: int = 8,
        retries: int = 3,
    ) -> None:
        """Raises ValueError for what is not a URL or not a key."""
        super().__init__(
            AsyncClient(
                url,
                api_key=api_key,
                timeout_s=timeout_s,
                max_concurrency=max_concurrency,
                retries=retries,
            )
        )


class HandleClient(Methods):
    """The same methods through a deployment handle, from another Ray job. Made by `connect()`."""

    def __init__(
        self, handle: Any, *, timeout_s: float, max_concurrency: int, retries: int
    ) -> None:
        transport = HandleTransport(handle, timeout_s=timeout_s)
        super().__init__(AsyncMethods(transport, max_concurrency=max_concurrency, retries=retries))


def connect(
    address: str = "auto",
    *,
    app: str = "raylens",
    timeout_s: float = 60.0,
    max_concurrency: int = 8,
    retries: int = 3,
) -> HandleClient:
    """A client of the service that runs on the Ray cluster at `address`, with `Client`'s methods.

    Joins the cluster unless this process already has; to join one that `raylens serve` has started
    on this machine, call it before anything imports Ray. Raises ImportError without `ray[serve]`,
    ConnectionError if no cluster runs there, RayServeException if it has no such `app`.
    """
    # `raylens serve` starts Ray with this user's token, which Ray by itself uses only if it has to
    # search for the cluster. Ray reads the variable when it is imported.
    if _is_local(address) and (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        from ray import serve
    except ImportError as error:  # a client-only installation
        raise ImportError("connect() needs Ray: pip install 'raylens[server]'") from error

    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    return HandleClient(
        serve.get_app_handle(app),
        timeout_s=timeout_s,
        max_concurrency=max_concurrency,
        retries=retries,
    )


def _is_local(address: str) -> bool:
    """Whether it may be a Ray that `raylens serve` has started: on loopback, or to be found."""
    host = address.rpartition("://")[2].rpartition(":")[0] or address
    return host in ("auto", "localhost", "[::1]") or host.startswith("127.")
