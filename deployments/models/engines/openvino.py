"""The engine of exported models: OpenVINO's own threads, awaited on the replica's event loop.

Knows nothing of torch or of how an export is made.
"""

import asyncio
import itertools
import math
import time
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from deployments.models import ir
from deployments.models.engines.engine import (
    ON_CPU,
    EngineError,
    as_fast_as,
    check_pixels,
    check_tokens,
    identity_in,
)
from deployments.models.exported import Export
from deployments.models.precision import NEEDED_COSINE, Settled
from deployments.models.probes import least_cosine
from deployments.wire import Loaded, Pixels, Precision, Tokens, Vectors

# Batches that run in parallel, each on some of the processors: beside other load, 7 to 20 % more
# images/s than one batch at a time on all of them (benchmarks/NOTES.md).
MAX_STREAMS = 4
# OpenVINO calls back only when an inference succeeds; failures have to be polled for.
POLL_S = 0.25
# A lone image gets all processors only if no batches have run in parallel for this long: when many
# clients send large photos, the model runs one image alone at times, but the processors are busy
# decoding, and threads that wait for each other would waste half of their CPU time.
QUIET_S = 1.0


class Inferences:
    """Inferences of one compiled tower: any number in flight, run in as many streams as it has."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []
        self._numbers = itertools.count()
        self._began: dict[int, float] = {}

    async def run(self, stack: NDArray[Any]) -> Vectors:
        """(N, …) to its vectors. Raises RuntimeError, OpenVINO's own, if that fails."""
        number = next(self._numbers)
        self._began[number] = time.monotonic()
        # In a task of its own, because an inference goes on when this coroutine is cancelled, and
        # reads the stack to the end.
        task = asyncio.create_task(self._run(stack))
        task.add_done_callback(lambda _: self._began.pop(number))
        return await asyncio.shield(task)

    async def _run(self, stack: NDArray[Any]) -> Vectors:
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        request.set_callback(lambda _: loop.call_soon_threadsafe(finish), None)
        request.start_async({0: stack}, share_inputs=True)
        while not done.done():
            await asyncio.wait([done], timeout=POLL_S)
            if not done.done():
                request.wait_for(0)  # raises what the inference failed with
        vectors: Vectors = request.get_output_tensor(0).data.copy()
        self._idle.append(request)  # not after a failure, which leaves it in an unknown state
        return vectors

    @property
    def in_flight(self) -> int:
        return len(self._began)

    def longest_s(self) -> float:
        """How long the oldest inference has been in flight."""
        return max((time.monotonic() - began for began in self._began.values()), default=0.0)


class ImageLanes:
    """Runs batches in parallel, and a lone image on all processors.

    For the latter the tower is compiled a second time, because OpenVINO's streams have a fixed
    number of threads.
    """

    def __init__(self, streams: Inferences, whole: Inferences, *, lanes: int) -> None:
        """`streams` has `lanes` streams; `whole` has one with all threads, and may be the same."""
        self.lanes = lanes
        self._streams = streams
        self._whole = whole
        self._crowded = -math.inf  # when batches last ran in parallel

    @classmethod
    def load(cls, path: Path, precision: Precision, *, threads: int) -> Self:
        model = ir.read(path)
        lanes = min(MAX_STREAMS, threads)
        streams = Inferences(ir.compile(model, precision, threads=threads, streams=lanes))
        if lanes == 1:
            return cls(streams, streams, lanes=1)
        return cls(streams, Inferences(ir.compile(model, precision, threads=threads)), lanes=lanes)

    async def run(self, pixels: Pixels) -> Vectors:
        now = time.monotonic()
        if self._streams.in_flight + self._whole.in_flight:
            self._crowded = now
        alone = len(pixels) == 1 and now - self._crowded > QUIET_S
        return await (self._whole if alone else self._streams).run(pixels)

    def longest_s(self) -> float:
        return max(self._streams.longest_s(), self._whole.longest_s())


class OpenvinoEngine:
    """An `engine.Engine` for an export, on the CPU."""

    def __init__(self, export: Export, settled: Settled, *, threads: int) -> None:
        """Maps the export's files and compiles them, in tenths of a second.

        Raises RuntimeError, OpenVINO's own, if a file is damaged.
        """
        manifest, precision = export.manifest, settled.precision
        self.loaded = Loaded(
            id=manifest.id,
            revision=manifest.revision,
            identity=identity_in(precision, export.identity(precision)),
            dimensions=manifest.dimensions,
            vectors_per_image=manifest.vectors_per_image,
            pixels=as_fast_as(precision, manifest.pixels, tolerant=manifest.tolerant),
            text=manifest.text,
            precision=precision,
            precision_reason=settled.reason,
            engine="openvino",
            engine_reason=f"OpenVINO {ir.VERSION}, as on every CPU",
            device="cpu",
            device_reason=ON_CPU,
        )
        self.tokenizer_json = export.tokenizer()
        self._image = ImageLanes.load(export.tower("image", precision), precision, threads=threads)
        self._text: Inferences | None = None
        if manifest.text is not None:
            self._text = Inferences(
                ir.compile(ir.read(export.tower("text", precision)), precision, threads=threads)
            )
        self.lanes, self.text_lanes = self._image.lanes, 1
        self._probes = export.probes()

    async def encode(self, pixels: Pixels) -> Vectors:
        check_pixels(pixels, self.loaded.pixels)
        return await self._image.run(pixels)

    async def encode_text(self, tokens: Tokens) -> Vectors:
        check_tokens(tokens, self.loaded.text)
        assert self._text is not None  # noqa: S101
        return await self._text.run(tokens)

    async def warm_up(self, *, images: int, texts: int) -> None:
        """Runs every stream once; the first batch of another size costs some milliseconds more."""
        probes = self._probes
        stack = probes.pixels[:2]  # one image would run on all processors
        for vectors in await asyncio.gather(*(self.encode(stack) for _ in range(self.lanes))):
            self._compare(vectors, probes.image_vectors[:2])

    async def prove(self) -> None:
        probes = self._probes
        self._compare(await self.encode(probes.pixels[:1]), probes.image_vectors[:1])
        if self._text is not None:  # not the first text, which is empty
            self._compare(await self.encode_text(probes.tokens[1:2]), probes.text_vectors[1:2])

    def _compare(self, vectors: Vectors, expected: Vectors) -> None:
        cosine = least_cosine(vectors, expected)
        if cosine < NEEDED_COSINE[self.loaded.precision]:
            raise EngineError(
                f"the model gives a vector with a cosine of {cosine:.4f} with the one that it gave "
                "when it was exported"
            )

    def check(self, *, stuck_after_s: float) -> None:
        busy_s = self._image.longest_s()
        if self._text is not None:
            busy_s = max(busy_s, self._text.longest_s())
        if busy_s > stuck_after_s:
            raise EngineError(f"the model has been stuck for {busy_s:.0f} s")
