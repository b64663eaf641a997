"""The HTTP application around the service: routes to the endpoints, and what all have in common."""

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from deployments.api.auth import KeyGuard, KeyRing, path_of, tenant_of
from deployments.api.budget import BodyBudget
from deployments.api.call import Call
from deployments.api.dialects import spoken
from deployments.api.endpoint import Dialect, Endpoint
from deployments.api.endpoints import NATIVE
from deployments.api.fence import request_id
from deployments.api.forwarding import MOST_FORWARDED
from deployments.api.front import admit_in_front, refused_meanwhile
from deployments.api.page import page_paths, page_routes
from deployments.api.render import json_response
from deployments.errors import (
    Internal,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RaylensError,
)
from deployments.fairness import FairSemaphore, TenantCount
from deployments.service.embedding import EmbeddingService
from deployments.service.job import Timing

logger = logging.getLogger("ray.serve")

# Headers that scripts of other origins may read.
EXPOSED_HEADERS = (
    "Retry-After",
    "Server-Timing",
    "X-Item-Errors",
    "X-Request-Id",
    "X-Truncated-Items",
)


class Api:
    """All endpoints of all dialects that the settings allow, with their deadlines and errors."""

    def __init__(self, service: EmbeddingService) -> None:
        self.service = service
        self._metrics = service.metrics
        self._parsing = FairSemaphore(1)
        self._forwarded = TenantCount(MOST_FORWARDED)
        self._dialects = (NATIVE, *spoken(service.settings.api))

    def app(self, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
        """The application; `lifespan` is entered while it is served."""
        page_is_on = self.service.settings.api.page
        endpoints = [endpoint for dialect in self._dialects for endpoint in dialect.endpoints]
        routes = [
            Route(e.path, self._handling(e, d.name), methods=[e.method])
            for d in self._dialects
            for e in d.endpoints
        ]
        app = Starlette(
            routes=_with_refusals([*routes, *(page_routes() if page_is_on else ())]),
            exception_handlers={HTTPException: self._refuse, Exception: self._refuse},
            lifespan=lifespan,
        )
        app.add_middleware(BodyBudget, limits=self.service.settings.limits)
        auth = self.service.settings.auth
        if auth.keys is not None or auth.keys_file is not None:
            app.add_middleware(
                KeyGuard,
                ring=KeyRing(auth),
                max_concurrency=auth.max_concurrency,
                open_paths=(page_paths() if page_is_on else frozenset())
                | {endpoint.path for endpoint in endpoints if endpoint.is_open},
                answer=self._without_endpoint,
            )
        origins = self.service.settings.api.cors_origins
        if origins:  # outside of the keys, because browsers ask first without one
            app.add_middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED_HEADERS,
            )
        app.add_middleware(_Clock)
        app.router.redirect_slashes = False  # a redirect would echo the caller's Host header
        return app

    def _handling(
        self, endpoint: Endpoint, dialect: str
    ) -> Callable[[Request], Awaitable[Response]]:
        """Gives its handler a deadline, and turns whatever it raises into an error's answer."""

        async def handle(request: Request) -> Response:
            timing: Timing | None = None
            failure: RaylensError | None = None
            try:
                async with self.service.time_limit() as deadline:
                    with self._arriving(request):
                        call = Call(request, self.service, deadline, self._parsing, self._forwarded)
                        response = await endpoint.handler(call)
                        timing = call.timing
            except RaylensError as error:
                failure = error
                response = self._error(error, request)
                is_early = request.method == "POST" and not hasattr(request.state, "arrival")
                if is_early and error.code == Overloaded.code:
                    admit_in_front(request, response, self.service.admission.requests_per_s)
            except ClientDisconnect:
                return Response()  # nobody is there to read it
            except Exception:
                logger.exception(f"Request {request_id(request)} failed.")
                failure = _failed()
                response = self._error(failure, request)
            seconds = _seconds(request)
            if not endpoint.is_open:
                self._metrics.answered(endpoint.path, dialect, failure, seconds)
            response.headers["server-timing"] = _server_timing(timing, seconds)
            return response

        return handle

    @contextmanager
    def _arriving(self, request: Request) -> Iterator[None]:
        """To be entered before a body is read. Raises Overloaded or RateLimited."""
        if request.method != "POST":
            yield
            return
        admission = self.service.admission
        admission.refused_in_front(refused_meanwhile(request))
        with admission.arriving(tenant_of(request)) as request.state.arrival:
            yield

    def _error(self, error: RaylensError, request: Request) -> Response:
        """An error as the clients of that path read it."""
        dialect = self._dialect_at(path_of(request.scope))
        content = dialect.error(error, request_id(request))
        headers = {}
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        return json_response(content, dialect.status(error.status), headers)

    def _without_endpoint(self, error: RaylensError, request: Request) -> Response:
        """An error before any endpoint had the request."""
        path = path_of(request.scope)
        dialect = self._dialect_at(path)
        at = next((e.path for e in dialect.endpoints if e.is_at(path)), "unknown")
        self._metrics.answered(at, dialect.name, error)
        response = self._error(error, request)
        response.headers["server-timing"] = _server_timing(None, _seconds(request))
        return response

    def _dialect_at(self, path: str) -> Dialect:
        return next((d for d in self._dialects if d.is_at(path)), NATIVE)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """What is raised outside of the endpoints, by Starlette or by a bug."""
        status = getattr(error, "status_code", 500)
        if status == 404:
            ours: RaylensError = NotFound("There is no such endpoint; /openapi.json lists them.")
        elif status == 405:
            ours = MethodNotAllowed("This endpoint does not take that method.")
        else:
            logger.error(f"Request {request_id(request)} failed.", exc_info=error)
            ours = _failed()
        response = self._without_endpoint(ours, request)
        response.headers.update(getattr(error, "headers", None) or {})  # Allow, for 405
        return response


class _Clock:
    """ASGI middleware: notes when a request came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            Request(scope).state.began = time.perf_counter()
        await self._app(scope, receive, send)


class _OtherMethods:
    """Refuses all requests for a path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """`routes` are those of the path."""
        methods = {method for route in routes for method in route.methods or ()}
        self._headers = {"Allow": ", ".join(sorted(methods))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(405, headers=self._headers)


def _with_refusals(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The routes path by path, each with one more for all other methods: a later path may match as
    well, such as `/v2/models/{model:path}` for `/v2/models/m/infer`."""
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        if isinstance(route, Route):
            by_path.setdefault(route.path, []).append(route)
    closed = [[*at, Route(path, _OtherMethods(at))] for path, at in by_path.items()]
    return [*chain.from_iterable(closed), *(r for r in routes if not isinstance(r, Route))]


def _seconds(request: Request) -> float:
    """Since it came; 0 if it failed before the clock saw it."""
    now = time.perf_counter()
    return now - float(getattr(request.state, "began", now))


def _failed() -> Internal:
    return Internal("The service failed; the log has the reason.")


def _server_timing(timing: Timing | None, total_s: float) -> str:
    stages = dataclasses.asdict(timing) if timing is not None else {}
    return ", ".join(
        f"{stage};dur={ms:.1f}" for stage, ms in {**stages, "total": total_s * 1e3}.items()
    )
