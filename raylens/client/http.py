"""Reaches the service over HTTP."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import httpx

from raylens.client import answers
from raylens.client.bodies import JsonBody
from raylens.client.connections import Connections
from raylens.client.errors import ApiError
from raylens.client.items import SentItem
from raylens.client.transport import EmbedOptions, Ranked, Row

DEFAULT_URL = "http://127.0.0.1:8000"


def needs_proxy(url: str) -> bool:
    """Whether a company's proxy, if the environment names one, may be used: it cannot reach this
    machine."""
    return httpx.URL(url).host not in ("127.0.0.1", "::1", "localhost")


class HttpTransport:
    """Connections to one service."""

    def __init__(
        self,
        url: str | None,
        *,
        api_key: str | None,
        timeout_s: float,
        max_concurrency: int,
    ) -> None:
        """Raises ValueError for what is not a URL, or a key that no header can hold."""
        self.url = (url or os.environ.get("RAYLENS_URL") or DEFAULT_URL).rstrip("/")
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{self.url!r} is not a URL of a service, such as {DEFAULT_URL}")
        key = (api_key or os.environ.get("RAYLENS_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):  # the message must not contain it
            raise ValueError("the API key has characters that no key has")
        self._connections = Connections(
            max_concurrency,
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # Half of the time for the connection: more than it needs, and less than would be
            # taken for a service that is there and slow.
            timeout=httpx.Timeout(timeout_s, connect=timeout_s / 2),
            trust_env=needs_proxy(self.url),
        )
        self._timeout_s = timeout_s

    async def embed(self, items: Sequence[SentItem], options: EmbedOptions) -> list[Row]:
        asked = {name: value for name, value in vars(options).items() if value is not None}
        response = await self._post(
            "/v1/embeddings", JsonBody(items, asked), accept="application/x-npy"
        )
        return answers.rows(response, options, len(items))

    async def classify(
        self,
        items: Sequence[SentItem],
        labels: Sequence[str],
        *,
        template: str | None,
        model: str | None,
    ) -> list[Ranked]:
        asked: dict[str, Any] = {"labels": list(labels)}
        asked |= {} if template is None else {"template": template}
        asked |= {} if model is None else {"model": model}
        response = await self._post(
            "/v1/classify", JsonBody(items, asked), accept="application/json"
        )
        return answers.ranked(response, len(items), labels)

    async def models(self) -> dict[str, Any]:
        response = await self._answer("GET", "/v1/models")
        return answers.models(response)

    async def ready(self) -> bool:
        try:
            await self._answer("GET", "/readyz")
        except (ConnectionError, TimeoutError):
            return False
        except ApiError as error:
            if error.status == 503:
                return False
            raise
        return True

    async def close(self) -> None:
        await self._connections.aclose()

    async def _post(self, path: str, body: JsonBody, *, accept: str) -> httpx.Response:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),  # or it would be sent in chunks
            "Accept": accept,
        }
        return await self._answer("POST", path, content=body, headers=headers)

    async def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer with status 200; `options` are those of `httpx.AsyncClient.request`."""
        try:
            # The time begins when a connection is free.
            async with self._connections.one() as connection, asyncio.timeout(self._timeout_s):
                response = await connection.request(method, path, **options)
        except httpx.ConnectTimeout as error:
            raise ConnectionError(f"nothing answers at {self.url} ({error})") from None
        except (TimeoutError, httpx.TimeoutException):
            raise TimeoutError(
                f"{self.url} did not answer in time, within {self._timeout_s:g} s"
            ) from None
        except httpx.HTTPError as error:
            raise ConnectionError(f"nothing answers at {self.url} ({error})") from None
        if response.status_code != 200:
            raise answers.refusal(response)
        return response
