"""The torch engine: for all models on a GPU, and on a CPU for those that cannot be exported.

Leaves loading and forward passes to `encoder`, which imports torch in the thread that runs it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from deployments.checkpoints.checkpoint import CheckpointError
from deployments.models.engines.engine import EngineError, identity_in
from deployments.models.engines.parts import InParts
from deployments.settings import ModelSettings
from deployments.wire import Loaded, NoMemoryError, Pixels, Stack, Tokens, Vectors

if TYPE_CHECKING:
    from deployments.models.encoder import Encoder

logger = logging.getLogger("ray.serve")

P = ParamSpec("P")
T = TypeVar("T")

# Time for warming up all batch sizes before the first request: large models would take minutes.
WARM_UP_S = 10.0


class ModelThread:
    """A thread in which torch loads the model, warms it up or runs it; on a CPU there is only one.

    With a second one, OpenMP would have two teams of threads for the same processors, and every
    operation would pay for a wake-up (measured: 19 ms became 47 ms for one image).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._busy_since: float | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the model thread, after whatever it is busy with."""

        def timed() -> T:
            self._busy_since = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._busy_since = None

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def check(self, *, stuck_after_s: float) -> None:
        """Raises EngineError if the thread is stuck in one call.

        That is all that can keep it from the next one, because its executor survives what calls
        raise. Asking the thread itself would make the health check wait for a batch.
        """
        since = self._busy_since
        if since is not None:
            busy_s = time.monotonic() - since
            if busy_s > stuck_after_s:
                raise EngineError(f"the model thread has been stuck for {busy_s:.0f} s")


class TorchEngine:
    """An `engine.Engine` around an `Encoder`."""

    def __init__(self, encoder: "Encoder", threads: list[ModelThread], *, reason: str) -> None:
        """Batches run in `threads`, in parallel."""
        self._encoder = encoder
        self._threads = threads
        self._idle: asyncio.Queue[ModelThread] = asyncio.Queue()
        for thread in threads:
            self._idle.put_nowait(thread)
        self._warm_images = self._warm_texts = 0
        self._images, self._texts = InParts(self._encode), InParts(self._encode_text)
        self.lanes = self.text_lanes = len(threads)
        self.tokenizer_json = encoder.tokenizer_json
        self.loaded = Loaded(
            id=encoder.checkpoint.id,
            revision=encoder.checkpoint.revision,
            identity=identity_in(encoder.precision, encoder.identity()),
            dimensions=encoder.dimensions,
            vectors_per_image=encoder.vectors_per_image,
            pixels=encoder.preprocessing.pixels,
            text=encoder.text,
            precision=encoder.precision,
            precision_reason=encoder.precision_reason,
            engine="torch",
            engine_reason=reason,
            device=encoder.device,
            device_reason=encoder.device_reason,
        )

    @classmethod
    async def load(cls, settings: ModelSettings, *, reason: str) -> Self:
        """Finds, checks and loads the configured checkpoint. Raises CheckpointError."""
        thread = ModelThread()
        encoder = await thread.run(_load, settings)
        # On a GPU, one thread prepares its batch while the other's runs.
        threads = [thread] if encoder.device == "cpu" else [ModelThread(), ModelThread()]
        return cls(encoder, threads, reason=reason)

    async def encode(self, pixels: Pixels) -> Vectors:
        return await self._images.encode(pixels)

    async def encode_text(self, tokens: Tokens) -> Vectors:
        return await self._texts.encode(tokens)

    async def warm_up(self, *, images: int, texts: int) -> None:
        """Raises NoMemoryError if the GPU has no memory for a single item.

        It may have none for larger batches: these are halved when they come (see `InParts`).
        """
        began = time.monotonic()
        fitting = images
        # One call for each size, so that a running service can serve requests in between.
        for size in (1, images, *range(2, images)):
            is_late = size != images and time.monotonic() - began > WARM_UP_S
            if is_late or not self._warm_images < size <= fitting:
                continue
            if not await self._warms_up(self._encoder.warm_up, size):
                fitting = size - 1
        self._warm_images = max(self._warm_images, fitting)
        if self.loaded.text is None:
            return
        for size in (1, texts):
            if self._warm_texts < size and await self._warms_up(self._encoder.warm_up_text, size):
                self._warm_texts = size

    async def prove(self) -> None:
        try:
            await self._run(partial(self._encoder.warm_up, 1))
            if self.loaded.text is not None:
                await self._run(partial(self._encoder.warm_up_text, 1))
        except CheckpointError as error:  # it passed when it was loaded
            raise EngineError(str(error)) from error

    def check(self, *, stuck_after_s: float) -> None:
        for thread in self._threads:
            thread.check(stuck_after_s=stuck_after_s)

    async def _encode(self, pixels: Stack) -> Vectors:
        return await self._run(partial(self._encoder.encode, pixels))

    async def _encode_text(self, tokens: Stack) -> Vectors:
        return await self._run(partial(self._encoder.encode_text, tokens))

    async def _warms_up(self, warm_up: Callable[[int], None], size: int) -> bool:
        """Whether all threads have memory for a batch of this size, side by side."""
        try:
            await asyncio.gather(*(self._run(partial(warm_up, size)) for _ in self._threads))
        except NoMemoryError as error:
            if size == 1:
                raise NoMemoryError(
                    "the GPU has no memory left, not even for one item; see what else uses the GPU"
                ) from error
            logger.warning(f"The model is not warmed up for larger batches: {error}.")
            return False
        return True

    async def _run(self, function: Callable[[], T]) -> T:
        thread = await self._idle.get()
        try:
            return await thread.run(function)
        finally:
            self._idle.put_nowait(thread)


def _load(settings: ModelSettings) -> "Encoder":
    # Imported here, because torch belongs to the model thread from its import on.
    from deployments.models.encoder import Encoder

    return Encoder.load(settings)
