"""The ingress's client of a model deployment: deadlines, one retry, and errors of our own."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from deployments.embedder.cold_start import ColdStart
from deployments.embedder.messages import STACK_BYTES
from deployments.embedder.pace import Pace
from deployments.embedder.replacement import warn_of_another
from deployments.errors import (
    DeadlineExceeded,
    Internal,
    ModelReplaced,
    Overloaded,
    RaylensError,
    Unavailable,
)
from deployments.metrics.declared import IngressMetrics
from deployments.texts.tokenizer import TextTokenizer
from deployments.wire import (
    ModelCard,
    NoMemoryError,
    Pixels,
    Stack,
    StackVectors,
    Tokens,
    WrongModelError,
)

logger = logging.getLogger("ray.serve")

# What a call raises when its replica dies. Embedding is pure, so such a call is retried once.
REPLICA_DIED = (RayActorError, RequestCancelledError, grpc.RpcError)

READY_TIMEOUT_S = 5.0

# By value, that is over gRPC: by reference every array would go through the object store.
# cloudpickle, the default, costs 0.7 ms more per image.
OVER_GRPC: dict[str, Any] = {
    "_by_reference": False,
    "request_serialization": "pickle",
    "response_serialization": "pickle",
}

# While a model is being replaced, replicas of both may serve. How many replicas
# to try for the model that a stack was made for, before switching to the other model.
MODEL_TRIES = 4


async def _nothing(card: ModelCard) -> None:
    """Prepares nothing."""


class EmbedderClient:
    """A model deployment behind its handle; the service's `ModelClient`."""

    stack_bytes = STACK_BYTES

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        *,
        names: frozenset[str],
        others: frozenset[str] = frozenset(),
        request_timeout_s: float,
        prepare: Callable[[ModelCard], Awaitable[None]] = _nothing,
        cold_start: ColdStart | None = None,
        metrics: IngressMetrics | None = None,
    ) -> None:
        """`names` are what the settings call the model: its id and aliases; `others` are those by
        which clients may know it besides. A call's deadline is about `request_timeout_s` after its
        request began. `prepare` is awaited before requests are made for a model that has not been
        seen. `cold_start` is for a model that may have no replicas.
        """
        self._names, self._others = names, others
        self._prepare = prepare
        self._retries = (metrics or IngressMetrics()).retries
        self._request_timeout_s = request_timeout_s
        self._ready_timeout_s = min(READY_TIMEOUT_S, 0.8 * request_timeout_s)
        # Made once: a handle per call costs more than the call.
        self._embed = handle.options(method_name="embed", **OVER_GRPC)
        self._embed_text = handle.options(method_name="embed_text", **OVER_GRPC)
        self._ready = handle.options(method_name="ready", **OVER_GRPC)
        # Called once, for tens of megabytes, which gRPC would refuse.
        self._read_tokenizer = handle.options(method_name="tokenizer", _by_reference=True)
        self._images, self._texts, self._refused = Pace(), Pace(), 0.0
        self._cold_start = cold_start or ColdStart()
        self._card: ModelCard | None = None
        self._tokenizer: TextTokenizer | None = None
        self._reloading: asyncio.Task[bool] | None = None
        self._last_success = self._last_death = -math.inf

    @property
    def card(self) -> ModelCard:
        if self._card is None:
            raise Unavailable("The model is still being loaded; retry.", retry_after_s=5)
        return self._card

    @property
    def is_loaded(self) -> bool:
        return self._card is not None

    @property
    def names(self) -> frozenset[str]:
        """What a request may call the model that serves, which need not be that of the settings:
        theirs may not have started yet, or cannot, or has been replaced already."""
        if self._card is None or self._card.id in self._names:
            return self._names | self._others
        return frozenset({self._card.id, *self._card.aliases})

    @property
    def tokenizer(self) -> TextTokenizer:
        if self._tokenizer is None:
            raise Unavailable("The model is still being loaded; retry.", retry_after_s=5)
        return self._tokenizer

    async def wait_until_loaded(self) -> None:
        """Returns once the card and the tokenizer are there, however long that takes."""
        while self._card is None:
            if not await self._load():
                await asyncio.sleep(2)

    async def _load(self) -> bool:
        """Fetches the model's card and tokenizer; returns whether that worked."""
        try:
            card: ModelCard = await self._ready.remote()
            tokenizer = None
            if card.text is not None:
                identity, json = await self._read_tokenizer.remote()
                if identity != card.identity:  # of another replica, while models are replaced
                    return False
                tokenizer = await asyncio.to_thread(
                    TextTokenizer, json, max_tokens=card.text.max_tokens
                )
            await self._prepare(card)
        except Exception as error:
            name = min(self._names, default="")
            logger.warning(f"Model {name} is not ready: {type(error).__name__}: {error}")
            return False
        warn_of_another(card, self._card, self._names)
        self._card, self._tokenizer = card, tokenizer  # together, for a job takes both
        return True

    def _reload_unless(self, identity: bytes) -> None:
        """Fetches the card and the tokenizer again if another version of the model has replied."""
        if self._card is None or self._card.identity == identity:
            return
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._load())

    async def reloaded(self) -> None:
        if self._reloading is not None:
            await asyncio.wait([self._reloading])

    def refusal(self) -> RaylensError | None:
        return self._cold_start.refusal(self._ready.remote) if self._card is not None else None

    def refused(self, items: float) -> None:
        self._refused += items

    async def ready(self, within_s: float = math.inf) -> ModelCard:
        known = self.card  # raises at once if there is none yet
        if self._cold_start.is_asleep():  # asking would wake it up, and health checks never end
            return known
        try:
            async with asyncio.timeout(min(within_s, self._ready_timeout_s)):
                card: ModelCard = await self._ready.remote()
        except (TimeoutError, BackPressureError):
            # Busy is not dead: a recent success proves more than this call.
            if asyncio.get_running_loop().time() - self._last_success < READY_TIMEOUT_S:
                return self.card
            reason = "does not answer"
        except Exception as error:
            logger.warning(f"The model deployment is not ready: {type(error).__name__}: {error}")
            reason = "fails"
        else:
            self._cold_start.started()
            if card.identity == self.card.identity:
                self._card = card
            self._reload_unless(card.identity)  # with its tokenizer
            return card
        raise Unavailable(f"The model {reason}.", retry_after_s=5)

    def item_s(self, *, text: bool = False) -> float:
        return (self._texts if text else self._images).item_s

    @property
    def others_s(self) -> float:
        return self._images.others_s + self._texts.others_s

    async def embed(
        self, stack: Pixels, identity: bytes, deadline: float, tenant: str | None
    ) -> StackVectors:
        with self._images.sent(len(stack)):
            made = await self._send(self._embed, stack, identity, deadline, tenant)
        self._images.note(made.queue)
        return made

    async def embed_text(
        self, stack: Tokens, identity: bytes, deadline: float, tenant: str | None
    ) -> StackVectors:
        with self._texts.sent(len(stack)):
            made = await self._send(self._embed_text, stack, identity, deadline, tenant)
        self._texts.note(made.queue)
        return made

    async def _send(
        self, method: Any, stack: Stack, identity: bytes, deadline: float, tenant: str | None
    ) -> StackVectors:
        if refusal := self.refusal():
            raise refusal
        self._cold_start.wake(self._ready.remote)
        refused = (self._refused,) if self._refused else ()
        self._refused = 0.0
        try:
            async with asyncio.timeout_at(deadline) as timer:
                made = await self._call_with_retry(method, stack, identity, tenant, *refused)
        except TimeoutError:
            if not timer.expired():  # raised by the model, not by our deadline
                logger.exception("The model failed on a stack.")
                raise Internal("The model failed on this request.") from None
            # Since the request began, not this call: a large request makes several.
            began = deadline - self._request_timeout_s
            if self._last_success > max(began, self._last_death):  # it is alive, only slow
                raise DeadlineExceeded(
                    "The model did not get to this request in time; send fewer items or retry."
                ) from None
            raise Unavailable("The model does not answer; retry.", retry_after_s=5) from None
        except WrongModelError as error:
            self._reload_unless(error.identity)
            raise ModelReplaced(
                "The model is being replaced by another; retry.", retry_after_s=1
            ) from None
        except NoMemoryError as error:
            logger.warning(f"The model failed on a stack: {error}.")
            raise Unavailable("The model has no memory left; retry.", retry_after_s=5) from None
        except BackPressureError:
            raise Overloaded(
                "The model has too much waiting; retry.", retry_after_s=1, limit="model"
            ) from None
        except (*REPLICA_DIED, DeploymentUnavailableError) as error:
            logger.warning(f"The model deployment is unavailable: {_reason(error)}.")
            raise Unavailable("The model is not available; retry.", retry_after_s=5) from None
        except Exception:
            logger.exception("The model failed on a stack.")
            raise Internal("The model failed on this request.") from None
        self._last_success = asyncio.get_running_loop().time()
        self._cold_start.started()
        return made

    async def _call_with_retry(self, method: Any, *args: Any) -> StackVectors:
        tries = MODEL_TRIES
        may_die = True
        while True:
            try:
                return await self._call(method, *args)
            except WrongModelError:
                tries -= 1
                if not tries:
                    raise
                self._retries.add(1, "wrong_model")
            except REPLICA_DIED as error:
                if not may_die:
                    raise
                may_die = False
                self._retries.add(1, "replica_died")
                logger.warning(f"A model replica died ({_reason(error)}); trying another.")

    async def _call(self, method: Any, *args: Any) -> StackVectors:
        try:
            return await method.remote(*args)  # type: ignore[no-any-return]
        except REPLICA_DIED as error:
            code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # larger than a message may be
                raise ValueError(_reason(error)) from None
            self._last_death = asyncio.get_running_loop().time()
            raise


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}, {error.details()!r}"
    return type(error).__name__
