"""The surface as blocking calls."""

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from raylens.client.items import Item
from raylens.client.methods import AsyncMethods
from raylens.client.pipeline import Failure
from raylens.client.transport import Dtype, Ranked, Vector

T = TypeVar("T")
Tasks: TypeAlias = "set[asyncio.Task[Any]]"


class Methods:
    """What AsyncMethods do, each as a blocking call, from any thread and beside a running event
    loop too, as in a notebook. See there for what items are and which errors are raised."""

    def __init__(self, methods: AsyncMethods) -> None:
        self._methods = methods
        self._loop = asyncio.new_event_loop()
        self._running: Tasks = set()
        self._thread = threading.Thread(
            target=_run_until_stopped,
            args=(self._loop, methods, self._running),
            name="raylens-client",
            daemon=True,
        )
        self._thread.start()
        self._pid = os.getpid()
        # Nothing may be submitted once the loop has been told to stop.
        self._lock = threading.Lock()
        self._stop = weakref.finalize(self, _stop, self._loop, self._pid)
        self._stop.atexit = False  # the process takes thread and sockets with it

    @overload
    def embed(
        self,
        items: Iterable[Item] | Item,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        dtype: Dtype = "float32",
        errors: Literal["raise"] = "raise",
        progress: bool = False,
    ) -> NDArray[Any]: ...

    @overload
    def embed(
        self,
        items: Iterable[Item] | Item,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        dtype: Dtype = "float32",
        errors: Literal["return"],
        progress: bool = False,
    ) -> list[Vector | Failure]: ...

    def embed(self, items: Iterable[Item] | Item, **options: Any) -> Any:
        return self._run(self._methods.embed(items, **options))

    def embed_image(self, x: Item) -> NDArray[np.float32]:
        return self._run(self._methods.embed_image(x))

    def embed_text(self, s: str) -> NDArray[np.float32]:
        return self._run(self._methods.embed_text(s))

    def similarity(
        self,
        a: Iterable[Item] | Item,
        b: Iterable[Item] | Item,
        mode: Literal["pairwise", "matrix"] = "pairwise",
    ) -> NDArray[np.float32]:
        return self._run(self._methods.similarity(a, b, mode))

    def rank(
        self, query: Item, documents: Iterable[Item] | Item, top_n: int | None = None
    ) -> list[tuple[int, float]]:
        return self._run(self._methods.rank(query, documents, top_n))

    def classify(
        self,
        items: Iterable[Item] | Item,
        labels: Sequence[str],
        template: str | None = None,
        *,
        model: str | None = None,
    ) -> list[Ranked]:
        return self._run(self._methods.classify(items, labels, template, model=model))

    def models(self) -> list[dict[str, Any]]:
        return self._run(self._methods.models())

    def ready(self) -> bool:
        return self._run(self._methods.ready())

    def close(self) -> None:
        """Ends what is under way in other threads too: it raises RuntimeError there."""
        if os.getpid() != self._pid:  # the thread is not here
            return
        with self._lock:
            self._stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if os.getpid() != self._pid:
            call.close()
            raise RuntimeError(
                "this client was made before fork(), and works in the parent process alone: make "
                "another one here"
            )
        with self._lock:
            if not self._stop.alive:
                call.close()
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(_noted(call, self._running), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the client is closed") from None
        except BaseException:  # Ctrl-C too ends what is under way
            future.cancel()
            raise


async def _noted(call: Coroutine[Any, Any, T], running: Tasks) -> T:
    """Runs a call, which is among the `running` ones meanwhile."""
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    running.add(task)
    try:
        return await call
    finally:
        running.discard(task)


def _run_until_stopped(
    loop: asyncio.AbstractEventLoop, methods: AsyncMethods, running: Tasks
) -> None:
    """The client's thread. It knows nothing of the client, which can be collected meanwhile."""
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(_end(methods, running))
    loop.close()


async def _end(methods: AsyncMethods, running: Tasks) -> None:
    """Cancels the calls, which end the tasks that they have started, and closes connections."""
    tasks = list(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await methods.close()


def _stop(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() == pid:  # a forked child shares the parent's sockets
        loop.call_soon_threadsafe(loop.stop)


def _share_docstrings() -> None:
    for name, method in vars(Methods).items():
        if not name.startswith("_") and method.__doc__ is None:
            method.__doc__ = getattr(AsyncMethods, name).__doc__


_share_docstrings()
