"""The surface as blocking calls."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from raylens.client.items import Item
from raylens.client.methods import AsyncMethods
from raylens.client.pipeline import Failure
from raylens.client.transport import Dtype, Ranked, Vector

T = TypeVar("T")


class Methods:
    """What AsyncMethods do, each as a blocking call, from any thread and beside a running event
    loop too, as in a notebook. See there for what items are and which errors are raised."""

    def __init__(self, methods: AsyncMethods) -> None:
        self._methods = methods
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="raylens-client", daemon=True
        )
        self._thread.start()

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
        if self._loop.is_closed():
            return
        self._run(self._methods.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C too ends what is under way
            future.cancel()
            raise


def _share_docstrings() -> None:
    for name, method in vars(Methods).items():
        if not name.startswith("_"):
            method.__doc__ = getattr(AsyncMethods, name).__doc__


_share_docstrings()
