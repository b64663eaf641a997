"""What an actor does: pixels to vectors, with the engine that serves requests.

Knows nothing of Ray; `pipeline` runs it there.
"""

import asyncio
import json
import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa

from deployments.bulk.loading import pixels_of
from deployments.bulk.stages import BusyClock, Spent
from deployments.checkpoints.checkpoint import CheckpointError
from deployments.errors import RaylensError
from deployments.models.engines.choice import load_engine
from deployments.service.vectors import finished
from deployments.settings import ModelSettings
from deployments.wire import Loaded, Vectors


class MixedVectorsError(Exception):
    """The model's vectors on this machine cannot be compared with those of the others."""


async def loaded_model(settings: ModelSettings, *, has_gpu: bool) -> Loaded:
    """What the engine says of the model, here. Raises CheckpointError, also if it gives several
    vectors for each image."""
    loaded = (await load_engine(settings, has_gpu=has_gpu)).loaded
    if loaded.vectors_per_image is not None:
        raise CheckpointError(
            f"model {loaded.id!r} gives {loaded.vectors_per_image} vectors for each image, and "
            "bulk jobs keep one; choose another model.pooling, or ask POST /v1/embeddings"
        )
    return loaded


class BulkModel:
    """The model in an actor. Two blocks at a time, so that it need not wait between them."""

    def __init__(self, settings: ModelSettings, identity: bytes, *, has_gpu: bool) -> None:
        """Raises MixedVectorsError unless the model has this `identity` here."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._engine = self._run(load_engine(settings, has_gpu=has_gpu))
        if self._engine.loaded.identity != identity:
            loaded = self._engine.loaded
            raise MixedVectorsError(
                f"the model runs in {loaded.precision} on this machine and in another precision on "
                "others; set model.precision to float32"
            )
        self._batch = settings.max_batch_size
        self._run(self._engine.warm_up(images=self._batch, texts=1))
        # One more than run side by side, so that the next is ready when one ends.
        self._turns = asyncio.Semaphore(self._engine.lanes + 1)
        self._busy = BusyClock()

    def embed(self, table: pa.Table) -> pa.Table:
        """`table` with `embedding` in the place of `_pixels`. Thread-safe."""
        began = time.time()
        pixels = pixels_of(table, self._engine.loaded.pixels)
        rows, busy_s = self._run(self._embed(pixels)) if len(pixels) else ([], 0.0)
        spent = Spent.since(began, "model", len(table), busy_s)
        return _with_vectors(table, rows, self._engine.loaded.dimensions, spent)

    async def _embed(self, pixels: Any) -> tuple[list[Any], float]:
        cuts = range(0, len(pixels), self._batch)
        stacks = await asyncio.gather(*(self._encode(pixels[c : c + self._batch]) for c in cuts))
        vectors = np.concatenate(stacks)
        rows = [finished(row, None, True, largest=np.inf) for row in vectors]
        return rows, self._busy.take()

    async def _encode(self, stack: Any) -> Vectors:
        async with self._turns:
            with self._busy:
                vectors: Vectors = await self._engine.encode(stack)
                return vectors

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _with_vectors(table: pa.Table, rows: list[Any], dimensions: int, spent: Spent) -> pa.Table:
    """The rows belong to those of the table that have pixels."""
    errors = table["error"].to_pylist()
    good = np.flatnonzero(np.asarray(table["_pixels"].is_valid()))
    vectors = np.zeros((len(table), dimensions), np.float32)
    is_bad = np.ones(len(table), bool)
    for index, row in zip(good, rows, strict=True):
        if isinstance(row, RaylensError):
            errors[index] = f"{row.code}: {row.message}"
        else:
            vectors[index], is_bad[index] = row, False
    said = table["_stages"].to_pylist()
    if said:
        said[0] = json.dumps([*json.loads(said[0] or "[]"), spent._asdict()])
    embedding = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), dimensions, mask=pa.array(is_bad)
    )
    kept = table.drop_columns(["_pixels", "error", "_stages"])
    for name, values in (
        ("embedding", embedding),
        ("error", pa.array(errors, pa.string())),
        ("_stages", pa.array(said, pa.string())),
    ):
        kept = kept.append_column(name, values)
    return kept
