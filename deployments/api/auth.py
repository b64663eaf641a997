"""Authentication by API keys, stored as hashes, each with a rate and a concurrency limit.

Middleware around the endpoints; knows nothing of what they do.
"""

import asyncio
import hashlib
import hmac
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import RateLimited, RaylensError, Unauthorized
from deployments.keys import ApiKey, KeysError, read_keys
from deployments.settings import Auth

logger = logging.getLogger("ray.serve")

# Within this time an added key works, and a revoked one no longer does.
RELOAD_S = 1.0


class KeyRing:
    """The keys of the settings and of the file, which is read again when it changes."""

    def __init__(self, settings: Auth) -> None:
        """Raises KeysError if the file cannot be read."""
        self._own = settings.keys or ()
        self._path = settings.keys_file
        self._keys: tuple[ApiKey, ...] = self._own
        self._version: object = None
        self._looked = 0.0
        if self._path is not None:
            self._version = _version(self._path)
            self._keys = self._own + read_keys(self._path)
        logger.info(f"All but health checks and the page need one of {len(self._keys)} API keys.")

    async def find(self, presented: str) -> ApiKey | None:
        """The key with this secret, or None."""
        await self._refresh()
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self._keys:  # all of them, so that timing does not reveal which
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    async def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._path is None or now - self._looked < RELOAD_S:
            return
        self._looked = now
        await asyncio.to_thread(self._read_if_changed, self._path)

    def _read_if_changed(self, path: Path) -> None:
        version = _version(path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._own + read_keys(path)
        except KeysError as error:  # fail closed, but lock nobody out over a typo
            logger.error(f"{error}. The keys read before stay valid.")
        else:
            logger.info(f"Read {path.name} again: {len(self._keys)} keys.")


def _version(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def path_of(scope: Scope) -> str:
    """The path without the application's route prefix, as routing sees it."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def tenant_of(request: Request) -> str | None:
    """The name of the request's key; None if the service requires none."""
    return getattr(request.state, "tenant", None)


class KeyGuard:
    """ASGI middleware: refuses requests without a valid key, except for health checks and the page,
    and requests beyond their key's limits."""

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing,
        max_concurrency: int,
        open_paths: frozenset[str],
        answer: Callable[[RaylensError, Request], Response],
    ) -> None:
        """`max_concurrency` applies to keys without a limit of their own; `open_paths` may be read
        without a key; `answer` makes the answer to a refused request."""
        self._app = app
        self._ring = ring
        self._max_concurrency = max_concurrency
        self._open_paths = open_paths
        self._answer = answer
        self._running: Counter[str] = Counter()
        self._rates = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            key = await self._key(request)
            await self._check_limits(key)
        except RaylensError as error:
            response = self._answer(error, request)
            if isinstance(error, Unauthorized):
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        request.state.tenant = key.name
        self._running[key.name] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running[key.name] -= 1

    def _is_open(self, scope: Scope) -> bool:
        """Only to those who read, because another endpoint at the same path may take a POST."""
        return scope["method"] in ("GET", "HEAD") and path_of(scope) in self._open_paths

    async def _key(self, request: Request) -> ApiKey:
        given = request.headers.getlist("authorization")
        scheme, _, secret = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        key = await self._ring.find(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise Unauthorized(
                "This service answers only with a valid key: send Authorization: Bearer YOUR_KEY."
            )
        return key

    async def _check_limits(self, key: ApiKey) -> None:
        """Raises RateLimited if the key is at its concurrency limit or above its rate."""
        limit = key.concurrency or self._max_concurrency
        if self._running[key.name] >= limit:
            raise RateLimited(
                f"This key may have {limit} requests in flight; wait until one is answered.",
                retry_after_s=1,
                limit="concurrency",
            )
        if key.rate is None:
            return
        rate = parse(key.rate)
        if not await self._rates.hit(rate, key.name):
            window = await self._rates.get_window_stats(rate, key.name)
            raise RateLimited(
                f"This key may send {key.rate.replace('/', ' requests per ')}; retry later.",
                retry_after_s=max(1, math.ceil(window.reset_time - time.time())),
                limit="rate",
            )
