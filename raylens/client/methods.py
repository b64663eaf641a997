"""The surface: what every client does, whichever way it reaches the service."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence, Sized
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from raylens.client.items import Item, as_items, image
from raylens.client.pipeline import Errors, Failure, Pipeline, Send
from raylens.client.retries import with_retries
from raylens.client.transport import NUMPY, Dtype, EmbedOptions, Ranked, Transport, Vector
from raylens.progress import counted

T = TypeVar("T")


class AsyncMethods:
    """All methods, for asyncio. `raylens.Client` says what items and errors there are."""

    def __init__(self, transport: Transport, *, max_concurrency: int, retries: int) -> None:
        if max_concurrency < 1 or retries < 0:
            raise ValueError("max_concurrency must be at least 1, and retries at least 0")
        self._transport = transport
        self._max_concurrency = max_concurrency
        self._retries = retries
        self._limits: dict[str, int] | None = None

    @overload
    async def embed(
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
    async def embed(
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

    async def embed(
        self,
        items: Iterable[Item] | Item,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        dtype: Dtype = "float32",
        errors: Errors = "raise",
        progress: bool = False,
    ) -> NDArray[Any] | list[Vector | Failure]:
        """Any number of items to an (N, D) array in their order, or (N, D / 8) of "ubinary"; to
        (N, P, D) if the model gives P vectors for each item, with zeros behind a text that has
        fewer than others.

        Items may come from a generator, and are read as they are sent. With `errors="return"` it
        is a list with a (D,) or (P, D) array for each good item and an exception in the place of
        each bad one; with "raise", the first bad item's error is raised.
        """
        options = EmbedOptions(model, dimensions, normalize, truncate, dtype)
        rows: list[Vector | Failure] = []
        items = as_items(items)
        total = len(items) if isinstance(items, Sized) else None
        with counted(total, shown=progress) as advance:
            async for batch in self.rows(items, options, errors=errors):
                rows += batch
                advance(len(batch), sum(isinstance(row, Exception) for row in batch))
        if errors == "return":
            return rows
        if not rows:
            return np.zeros((0, *await self._shape(options)), NUMPY[dtype])
        return _stacked(cast("list[NDArray[Any]]", rows))  # no errors are among them

    async def embed_image(self, x: Item) -> NDArray[np.float32]:
        """An image to a (D,) array, or to (P, D). A string is never a text here: if it names no
        local file and is no URL or data URI, it is the path of a file on the service's machine."""
        (vector,) = await self.embed([image(x)])
        return cast(NDArray[np.float32], vector)

    async def embed_text(self, s: str) -> NDArray[np.float32]:
        """A text to a (D,) array."""
        (vector,) = await self.embed([{"text": s}])
        return cast(NDArray[np.float32], vector)

    async def similarity(
        self,
        a: Iterable[Item] | Item,
        b: Iterable[Item] | Item,
        mode: Literal["pairwise", "matrix"] = "pairwise",
    ) -> NDArray[np.float32]:
        """Cosines: (N,) of each item of `a` with the one of `b` at the same place, or an (N, M)
        "matrix" of each with each. Raises ValueError if the lengths differ in "pairwise"."""
        if mode not in ("pairwise", "matrix"):
            raise ValueError(f'mode must be "pairwise" or "matrix", not {mode!r}')
        left = one_each(await self.embed(a))
        right = one_each(await self.embed(b))
        if mode == "matrix":
            return _cosines(left @ right.T)
        if len(left) != len(right):
            raise ValueError(f"{len(left)} items cannot be paired with {len(right)}")
        return _cosines(np.einsum("nd,nd->n", left, right))

    async def rank(
        self, query: Item, documents: Iterable[Item] | Item, top_n: int | None = None
    ) -> list[tuple[int, float]]:
        """The documents as (index, score), best first, at most `top_n`. The score is the cosine
        with the query; or, of a late-interaction model, for each vector of the query the largest
        cosine with one of the document's, summed."""
        if top_n is not None and top_n < 1:
            raise ValueError(f"top_n must be at least 1, not {top_n}")
        (target,) = await self._every([query])
        found = await self._every(documents)
        if target.ndim == 1:
            scores = _cosines(np.array(found, np.float32).reshape(-1, len(target)) @ target)
        elif (await self.models())[0].get("score") == "maxsim":
            scores = np.array([(target @ v.T).max(axis=1).sum() for v in found], np.float32)
        else:
            one_each(target[None])
        best = np.argsort(-scores, kind="stable")[:top_n]
        return [(int(index), float(scores[index])) for index in best]

    async def classify(
        self,
        items: Iterable[Item] | Item,
        labels: Sequence[str],
        template: str | None = None,
        *,
        model: str | None = None,
    ) -> list[Ranked]:
        """For each item, (label, probability) of all labels, best first, by the model's own rule.

        A label becomes a text by the `template`, by default "a photo of a {}.".
        """
        if isinstance(labels, str):
            raise TypeError(f"labels must be a list of texts, not the text {labels!r}")
        results: list[Ranked] = []
        send = partial(self._transport.classify, labels=labels, template=template, model=model)
        async for batch in (await self._pipeline(send, "raise")).run(as_items(items)):
            results += batch
        return results

    async def models(self) -> list[dict[str, Any]]:
        """The served models, with their dimensions, modalities and limits."""
        listed = await self._repeated(self._transport.models)
        return list(listed["data"])

    async def ready(self) -> bool:
        """Whether the service answers and its model has just worked."""
        return await self._transport.ready()

    async def rows(
        self,
        items: Iterable[Item],
        options: EmbedOptions,
        *,
        errors: Errors = "return",
    ) -> AsyncGenerator[list[Vector | Failure], None]:
        """The vectors, or failures, of a stream of items in their order, a batch at a time."""
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", not {errors!r}')
        options = replace(options, on_error="fail" if errors == "raise" else "report")
        send = partial(self._transport.embed, options=options)
        async with aclosing((await self._pipeline(send, errors)).run(items)) as batches:
            async for batch in batches:
                yield batch

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _every(self, items: Iterable[Item] | Item) -> list[NDArray[np.float32]]:
        """The vectors of each item."""
        batches = self.rows(as_items(items), EmbedOptions(), errors="raise")
        return [cast(NDArray[np.float32], row) async for batch in batches for row in batch]

    async def _pipeline(self, send: Send, errors: Errors) -> Pipeline:
        if self._limits is None:  # asked for once
            listed = await self._repeated(self._transport.models)
            self._limits = dict(listed["limits"])
        return Pipeline(
            send,
            errors=errors,
            limits=self._limits,
            max_concurrency=self._max_concurrency,
            retries=self._retries,
        )

    async def _repeated(self, send: Callable[[], Awaitable[T]]) -> T:
        return await with_retries(send, retries=self._retries)

    async def _shape(self, options: EmbedOptions) -> tuple[int, ...]:
        """Of each row of an array that has none."""
        models = await self.models()
        named = [m for m in models if options.model in (m["id"], *m.get("aliases", ()))]
        model = (named or models)[0]
        dimensions = options.dimensions or int(model["dimensions"])
        length = -(-dimensions // 8) if options.dtype == "ubinary" else dimensions
        several = int(model.get("vectors_per_image", 1))
        return (length,) if several == 1 else (several, length)


def _stacked(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """As one array, with zeros behind rows that are shorter than others."""
    most = max(map(len, rows))
    if rows[0].ndim == 2:
        rows = [np.pad(row, ((0, most - len(row)), (0, 0))) for row in rows]
    return np.stack(rows)


def one_each(vectors: NDArray[Any]) -> NDArray[Any]:
    """The (N, D) vectors of N items. Raises ValueError if they are (N, P, D)."""
    if vectors.ndim != 2:
        raise ValueError(
            f"the model gives {vectors.shape[1]} vectors for each item, and one is needed here"
        )
    return vectors


def _cosines(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of unit vectors, without what rounding adds beyond 1."""
    return products.clip(-1, 1)
