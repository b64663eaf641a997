"""The HTTP endpoints, as a Starlette application around the service."""

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from deployments.api import render
from deployments.api.auth import KeyGuard, KeyRing, tenant_of
from deployments.api.bodies import (
    is_image,
    is_json,
    media_type,
    parse_json,
    preferred_format,
    read_body,
    read_form,
    read_json,
)
from deployments.api.budget import BodyBudget
from deployments.api.fence import request_id
from deployments.api.front import admit_in_front, refused_meanwhile
from deployments.api.listing import model_entry, model_list
from deployments.api.openapi import openapi
from deployments.api.page import page_routes
from deployments.api.schema import (
    ClassifyBody,
    EmbeddingOptions,
    EmbeddingsBody,
    RankBody,
    SimilarityBody,
    parse,
    without_empty,
)
from deployments.errors import (
    BadRequest,
    Internal,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RaylensError,
    UnsupportedMediaType,
)
from deployments.fairness import FairSemaphore
from deployments.items import BytesItem, Modality, parse_items, signature_of
from deployments.service.classify import Classifier
from deployments.service.embedding import Embedded, EmbeddingService, too_many_items
from deployments.service.job import Context, ItemGroup, Timing
from deployments.service.stacks import all_or_none
from deployments.service.vectors import as_matrix, cosines
from deployments.wire import Vectors

logger = logging.getLogger("ray.serve")

Handler = Callable[["Api", Request, float], Awaitable[Response]]


def endpoint(handler: Handler) -> Callable[["Api", Request], Awaitable[Response]]:
    """Gives a handler its deadline, and turns whatever it raises into an error answer."""

    @functools.wraps(handler)
    async def call(self: "Api", request: Request) -> Response:
        began = time.perf_counter()
        try:
            async with self.service.time_limit() as deadline:
                with self.arriving(request):
                    response = await handler(self, request, deadline)
        except RaylensError as error:
            response = render.error_response(error, request_id(request))
            is_early = request.method == "POST" and not hasattr(request.state, "arrival")
            if is_early and error.code == Overloaded.code:
                admit_in_front(request, response, self.service.admission.requests_per_s)
        except ClientDisconnect:
            return Response()  # nobody is there to read it
        except Exception:
            logger.exception(f"Request {request_id(request)} failed.")
            failed = Internal("The service failed; the log has the reason.")
            response = render.error_response(failed, request_id(request))
        total = f"total;dur={(time.perf_counter() - began) * 1e3:.1f}"
        stages = response.headers.get("server-timing")
        response.headers["server-timing"] = f"{stages}, {total}" if stages else total
        return response

    return call


def server_timing(timing: Timing) -> dict[str, str]:
    stages = (f"{stage};dur={ms:.1f}" for stage, ms in dataclasses.asdict(timing).items())
    return {"Server-Timing": ", ".join(stages)}


class Api:
    """The endpoints. Each parses its body, asks the service and renders the answer."""

    def __init__(self, service: EmbeddingService) -> None:
        self.service = service
        self._classifier = Classifier(service)
        self._limits = service.settings.limits
        self._parsing = FairSemaphore(1)

    def app(self, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
        """The application; `lifespan` is entered while it is served."""
        routes: list[tuple[str, str, Any]] = [
            ("POST", "/v1/embeddings", self.embeddings),
            ("POST", "/v1/similarity", self.similarity),
            ("POST", "/v1/rank", self.rank),
            ("POST", "/v1/classify", self.classify),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{model:path}", self.one_model),
            ("GET", "/livez", self.livez),
            ("GET", "/readyz", self.readyz),
            ("GET", "/openapi.json", self.openapi),
        ]
        app = Starlette(
            routes=[
                *(Route(path, handler, methods=[method]) for method, path, handler in routes),
                *(page_routes() if self.service.settings.api.page else ()),
            ],
            exception_handlers={HTTPException: framework_error, Exception: framework_error},
            lifespan=lifespan,
        )
        app.add_middleware(BodyBudget, limits=self._limits)
        auth = self.service.settings.auth
        if auth.keys is not None or auth.keys_file is not None:
            app.add_middleware(KeyGuard, ring=KeyRing(auth), max_concurrency=auth.max_concurrency)
        origins = self.service.settings.api.cors_origins
        if origins:  # outside of the keys, because browsers ask first without one
            app.add_middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["Retry-After", "Server-Timing", "X-Item-Errors", "X-Request-Id"],
            )
        app.router.redirect_slashes = False  # a redirect would echo the caller's Host header
        return app

    @contextmanager
    def arriving(self, request: Request) -> Iterator[None]:
        """To be entered before a body is read. Raises Overloaded or RateLimited."""
        if request.method != "POST":
            yield
            return
        admission = self.service.admission
        admission.refused(refused_meanwhile(request))
        with admission.arriving(tenant_of(request)) as request.state.arrival:
            yield

    @endpoint
    async def embeddings(self, request: Request, deadline: float) -> Response:
        preferred = preferred_format(request)
        asked, group = await self._embedding_input(request)
        context = self._context(request, asked.model, deadline)
        embedded = await self.service.embed([group], context, asked.options())
        headers = server_timing(embedded.timing)
        if preferred == "npy":
            width = asked.dimensions or embedded.card.dimensions
            return render.embeddings_npy(embedded.rows, width, asked.dtype, headers)
        return render.embeddings_json(embedded, asked.dtype, asked.encoding_format, headers)

    def _context(self, request: Request, model: str | None, deadline: float) -> Context:
        return Context(model, deadline, tenant_of(request), request.state.arrival)

    async def _json(self, request: Request) -> dict[str, Any]:
        turn = self._parsing.turn(tenant_of(request))
        return await read_json(request, self._limits.max_body_bytes, turn)

    async def _embedding_input(self, request: Request) -> tuple[EmbeddingOptions, ItemGroup]:
        kind = media_type(request)
        # Options in the query apply to any body; the body's own take precedence.
        asked = parse(EmbeddingOptions, dict(request.query_params), strict=False)
        query = asked.model_dump(exclude_unset=True)
        if kind == "multipart/form-data":
            fields, files = await read_form(request, self._limits)
            options = parse(EmbeddingOptions, {**query, **without_empty(fields)}, strict=False)
            return options, ItemGroup("file", [BytesItem(f) for f in files])
        if not (is_image(kind) or is_json(kind)):
            raise UnsupportedMediaType(
                "Send application/json, multipart/form-data or the image itself as image/*, with "
                "the header Content-Type."
            )
        data = await read_body(request, self._limits.max_body_bytes)
        if is_image(kind) or (not kind and signature_of(data) is not None):
            return asked, ItemGroup("input", [BytesItem(data)], is_list=False)
        content = await parse_json(data, self._parsing.turn(tenant_of(request)))
        for name, value in query.items():
            if content.get(name) is None:
                content[name] = value
        body = parse(EmbeddingsBody, content)
        return body, one_or_more("input", body.input, self._limits.max_items, body.modality)

    @endpoint
    async def similarity(self, request: Request, deadline: float) -> Response:
        body = parse(SimilarityBody, await self._json(request))
        limit = self._limits.max_items
        groups = [one_or_more("a", body.a, limit), one_or_more("b", body.b, limit)]
        context = self._context(request, body.model, deadline)
        (a, b), embedded = await self._vectors(groups, context)
        scores = (a @ b.T).clip(-1, 1) if body.mode == "matrix" else cosines(a, b)
        return render.json_response({"scores": scores}, headers=server_timing(embedded.timing))

    @endpoint
    async def rank(self, request: Request, deadline: float) -> Response:
        body = parse(RankBody, await self._json(request))
        documents = one_or_more("documents", body.documents, self._limits.max_items)
        query = ItemGroup("query", parse_items([body.query]), is_list=False)
        context = self._context(request, body.model, deadline)
        (target, others), embedded = await self._vectors([query, documents], context)
        scores = (others @ target[0]).clip(-1, 1)
        best = np.argsort(-scores, kind="stable")[: body.top_n]
        results = [{"index": int(i), "score": scores[i]} for i in best]
        answer = {"object": "list", "model": embedded.card.id, "results": results}
        return render.json_response(answer, headers=server_timing(embedded.timing))

    @endpoint
    async def classify(self, request: Request, deadline: float) -> Response:
        body = parse(ClassifyBody, await self._json(request))
        group = one_or_more("input", body.input, self._limits.max_items)
        context = self._context(request, body.model, deadline)
        rows, card, timing = await self._classifier.classify(
            group, body.labels, body.template, context
        )
        # In a thread: half a million labels and more would block the event loop.
        return await asyncio.to_thread(
            render.labels_json, rows, body.labels, card.id, server_timing(timing)
        )

    @endpoint
    async def models(self, request: Request, deadline: float) -> Response:
        return render.json_response(model_list(self.service))

    @endpoint
    async def one_model(self, request: Request, deadline: float) -> Response:
        model = self.service.model(request.path_params["model"])
        return render.json_response(model_entry(model.card, self._limits))

    @endpoint
    async def livez(self, request: Request, deadline: float) -> Response:
        return render.json_response({"status": "ok"})

    @endpoint
    async def readyz(self, request: Request, deadline: float) -> Response:
        cards = await all_or_none([model.ready() for model in self.service.models])
        return render.json_response({"status": "ready", "model": cards[0].id})

    @endpoint
    async def openapi(self, request: Request, deadline: float) -> Response:
        return render.json_response(openapi())

    async def _vectors(
        self, groups: Sequence[ItemGroup], context: Context
    ) -> tuple[list[Vectors], Embedded]:
        """Each group of items as its (N, D) unit vectors, embedded together."""
        embedded = await self.service.embed(groups, context)
        ends = np.cumsum([len(group.items) for group in groups])
        return np.split(as_matrix(embedded.rows), ends[:-1]), embedded


def one_or_more(name: str, value: Any, limit: int, modality: Modality | None = None) -> ItemGroup:
    """One item or a list of them, each parsed or an error."""
    if value == []:
        raise BadRequest(f"{name} is empty; send at least one item.", param=name)
    if isinstance(value, list):
        if len(value) > limit:  # before parsing: millions would take minutes and gigabytes
            raise too_many_items(len(value), limit, param=name)
        return ItemGroup(name, parse_items(value, modality))
    return ItemGroup(name, parse_items([value], modality), is_list=False)


async def framework_error(request: Request, error: Exception) -> Response:
    """What is raised outside of the endpoints, by Starlette or by a bug, in our format."""
    status = getattr(error, "status_code", 500)
    if status == 404:
        ours: RaylensError = NotFound("There is no such endpoint; /openapi.json lists them.")
    elif status == 405:
        ours = MethodNotAllowed("This endpoint does not take that method.")
    else:
        logger.error(f"Request {request_id(request)} failed.", exc_info=error)
        ours = Internal("The service failed; the log has the reason.")
    response = render.error_response(ours, request_id(request))
    response.headers.update(getattr(error, "headers", None) or {})  # Allow, for 405
    return response
