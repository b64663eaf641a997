"""Reaches the service over HTTP."""

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from raylens.client.bodies import JsonBody
from raylens.client.errors import ApiError
from raylens.client.items import SentItem
from raylens.client.transport import EmbedOptions, Ranked, Row

DEFAULT_URL = "http://127.0.0.1:8000"


class HttpTransport:
    """A pool of connections to one service."""

    def __init__(
        self,
        url: str | None,
        *,
        api_key: str | None,
        timeout_s: float,
        max_concurrency: int,
    ) -> None:
        """Raises ValueError for what is no URL, or a key that no header can hold."""
        self.url = (url or os.environ.get("RAYLENS_URL") or DEFAULT_URL).rstrip("/")
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is no URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{self.url!r} is no URL of a service, such as {DEFAULT_URL}")
        key = (api_key or os.environ.get("RAYLENS_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):  # the message must not contain it
            raise ValueError("the API key has characters that no key has")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=max_concurrency),
            # A company's proxy cannot reach this machine.
            trust_env=parsed.host not in ("127.0.0.1", "::1", "localhost"),
        )

    async def embed(self, items: Sequence[SentItem], options: EmbedOptions) -> list[Row]:
        asked = {name: value for name, value in vars(options).items() if value is not None}
        response = await self._post(
            "/v1/embeddings", JsonBody(items, asked), accept="application/x-npy"
        )
        with _ours(response):
            vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
            if vectors.ndim != 2 or len(vectors) != len(items):
                raise ValueError
            rows: list[Row] = list(vectors)
            for index, error in _item_errors(response):
                rows[index] = error
        return rows

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
        with _ours(response):
            return [
                [(entry["label"], entry["probability"]) for entry in item["labels"]]
                for item in response.json()["data"]
            ]

    async def models(self) -> dict[str, Any]:
        response = await self._answer(self._client.build_request("GET", "/v1/models"))
        with _ours(response):
            listed: dict[str, Any] = response.json()
            if not (isinstance(listed["data"], list) and isinstance(listed["limits"], dict)):
                raise TypeError
            return listed

    async def ready(self) -> bool:
        try:
            await self._answer(self._client.build_request("GET", "/readyz"))
        except (ConnectionError, TimeoutError):
            return False
        except ApiError as error:
            if error.status == 503:
                return False
            raise
        return True

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, path: str, body: JsonBody, *, accept: str) -> httpx.Response:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),  # or it would be sent in chunks
            "Accept": accept,
        }
        return await self._answer(
            self._client.build_request("POST", path, content=body, headers=headers)
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        """An answer with status 200."""
        try:
            response = await self._client.send(request)
        except httpx.ConnectTimeout as error:
            raise ConnectionError(f"nothing answers at {self.url} ({error})") from None
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{self.url} did not answer in time ({error!r})") from None
        except httpx.HTTPError as error:
            raise ConnectionError(f"nothing answers at {self.url} ({error})") from None
        if response.status_code != 200:
            raise _error(response)
        return response


def _error(response: httpx.Response) -> ApiError:
    """The service's error, or one about whatever else answered."""
    retry_after = response.headers.get("Retry-After", "")
    retry_after_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        error = response.json()["error"]
        items = {
            entry["index"]: ApiError(str(entry["message"]), code=str(entry["code"]))
            for entry in error.get("items") or ()
        }
        return ApiError(
            str(error["message"]),
            code=str(error["code"]),
            status=response.status_code,
            param=error.get("param"),
            request_id=error.get("request_id"),
            items=items,
            retry_after_s=retry_after_s,
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return ApiError(
            f"{response.url} answered with status {response.status_code}, and not as raylens does",
            code="unknown",
            status=response.status_code,
            retry_after_s=retry_after_s,
        )


def _item_errors(response: httpx.Response) -> list[tuple[int, ApiError]]:
    """The errors in X-Item-Errors: one for each item or, where many failed, for each code."""
    errors = []
    request_id = response.headers.get("X-Request-Id")
    for entry in json.loads(response.headers.get("X-Item-Errors", "[]")):
        message = entry.get("message", "Embed it alone to learn more.")
        for index in entry.get("indices", [entry.get("index")]):
            errors.append((index, ApiError(message, code=entry["code"], request_id=request_id)))
    return errors


@contextmanager
def _ours(response: httpx.Response) -> Iterator[None]:
    """Inside, what cannot be read is no answer of raylens."""
    try:
        yield
    except (ValueError, LookupError, TypeError):
        raise ApiError(
            f"What answers at {response.url} is not raylens.",
            code="unknown",
            status=response.status_code,
        ) from None
