"""Bulk embedding as a Ray Data pipeline: tasks load images, actors hold the model, parts are
written as vectors arrive.

`raylens.bulk` starts it; what tasks and actors do is in the other modules.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset, ExecutionResources

from deployments.bulk import sources
from deployments.bulk.loading import LoadConfig, loader
from deployments.bulk.model import BulkModel, loaded_model
from deployments.bulk.parts import Destination, Keys, Model, WrittenPart, write_part
from deployments.bulk.places import Place
from deployments.bulk.stages import Stage, stages
from deployments.settings import MIB, ModelSettings, Settings
from deployments.wire import Loaded

if TYPE_CHECKING:
    from deployments.bulk.lance import LanceDestination

# A part is written when it has this many rows, or when its first rows have waited this long, so
# that a kill costs no more than that.
PART_ROWS = 8192
PART_S = 30.0
# Blocks of pixels that wait for the model, in all. More would only take memory.
WAITING_BYTES = 512 * MIB


class Summary(NamedTuple):
    """A run as it ended."""

    rows: int
    failed: int
    before: int
    """Rows that earlier runs had done."""
    skipped: int
    """Files that are no images."""
    seconds: float
    """From the first image to the last vector."""
    stages: list[Stage]


class Embedding(Protocol):
    """A way from images to vectors: `ActorPool`, or a running service."""

    model: Model
    max_image_bytes: int
    """Larger ones need not be read."""

    def embed(self, dataset: Dataset, column: str, root: Place | None) -> Dataset:
        """`dataset` with the columns of `parts.schema` that are known of the images in `column`,
        and `_stages`: see `loading` and `stages`. Files that it names are below `root`."""

    def workers(self) -> Mapping[str, int]:
        """How many each stage has."""


Counting = Callable[[int | None], AbstractContextManager[Callable[[int, int], None]]]
"""Given the number of rows, if it is known, a function that gets how many more are done, and how
many of those failed."""


class ActorPool:
    """Tasks that load images, and actors that hold the model."""

    def __init__(self, settings: Settings, replicas: tuple[int, int] | None = None) -> None:
        """`replicas` are the least and the most actors; by default up to one on each node, or for
        each GPU. Loads the model once, in a task, which exports it if need be; raises what that
        raises."""
        self._settings = settings
        self.max_image_bytes = settings.limits.max_image_bytes
        gpus = int(ray.cluster_resources().get("GPU", 0))
        self._has_gpu = gpus > 0 and settings.model.device != "cpu"
        nodes = sum(1 for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1)
        self._least, self._most = replicas or (1, gpus if self._has_gpu else max(1, nodes))
        # About one logical processor each, whatever its threads take: loading needs the others, and
        # uses no more of them than the model leaves, because its blocks wait for the model. Not
        # the same number as a loading task's, or Ray Data would load in the actors as well, and
        # the model would wait for it (`are_remote_args_compatible` in its operator_fusion.py).
        self._resources = {"num_cpus": 0.9, "num_gpus": 1 if self._has_gpu else 0}
        probe = ray.remote(_probe).options(**self._resources)
        self._loaded: Loaded = ray.get(probe.remote(settings.model, self._has_gpu))
        loaded = self._loaded
        self.model = Model(loaded.id, loaded.revision, loaded.dimensions, loaded.identity.hex())

    def embed(self, dataset: Dataset, column: str, root: Place | None) -> Dataset:
        config = LoadConfig(self._settings, self._loaded.pixels)

        def load(table: pa.Table) -> pa.Table:
            return loader(config).load(table, column, root)

        decoded = dataset.map_batches(
            load,
            batch_format="pyarrow",
            batch_size=sources.ROWS_AT_A_TIME,
            num_cpus=1,
        )
        return decoded.map_batches(
            _ModelActor,
            fn_constructor_args=(self._settings.model, self._loaded.identity, self._has_gpu),
            batch_format="pyarrow",
            batch_size=None,
            compute=ActorPoolStrategy(
                min_size=self._least,
                max_size=self._most,
                max_tasks_in_flight_per_actor=3,
                max_concurrent_calls_per_actor=2,  # so that the model need not wait between blocks
                enable_true_multi_threading=True,
            ),
            **self._resources,
        )

    def workers(self) -> Mapping[str, int]:
        loading = max(1, int(ray.cluster_resources().get("CPU", 1)) - self._most)
        return {"read": loading, "decode": loading, "model": self._most}


def destination_kind(place: Place) -> "type[Destination | LanceDestination]":
    """The class that writes there. Raises ModuleNotFoundError if its library is not installed."""
    if not place.path.endswith(".lance"):
        return Destination
    from deployments.bulk.lance import LanceDestination

    return LanceDestination


def run(
    source: Place,
    destination: Place,
    embedding: Embedding,
    *,
    counting: Counting,
    column: str | None = None,
    root: Place | None = None,
    part_rows: int = PART_ROWS,
) -> Summary:
    """Embeds all of `source` that `destination` does not have yet.

    `column` is that of the images in Parquet files, which may name files below `root`, by default
    the source's own folder. A `destination` that ends in `.lance` becomes a Lance dataset. Raises
    SourceError, PlaceError or DestinationError.
    """
    found = sources.find(source, leave_out=destination)
    groups = sources.row_groups(source, found.parquets, column)
    target = destination_kind(destination)(destination, embedding.model)
    done = target.done()
    began = time.time()
    waiting = ExecutionResources.for_limits(object_store_memory=WAITING_BYTES * len(ray.nodes()))
    context = ray.data.DataContext.get_current()
    context.execution_options.resource_limits = waiting
    # Ray Data's own error would say only that there was one.
    context.raise_original_map_exception = True
    parts: list[WrittenPart] = []
    known = ray.put(done)  # read by tasks, which filter their rows
    folder = source.folder()
    inputs = _images(source, found, done) + _tars(source, found, known, embedding.max_image_bytes)
    listed = [(dataset, images, folder) for dataset, images in inputs]
    listed += [(*rows, root or folder) for rows in _parquets(source, groups, known)]
    with counting(_number(found, groups, done)) as advance:
        for dataset, images, below in listed:
            embedded = embedding.embed(dataset, images, below)
            parts += _write(embedded, target, part_rows=part_rows, advance=advance)
    target.close()
    spent = [one for part in parts for one in part.stages]
    return Summary(
        rows=sum(part.rows for part in parts),
        failed=sum(part.failed for part in parts),
        before=len(done),
        skipped=found.skipped,
        seconds=time.time() - min((one["began"] for one in spent), default=began),
        stages=stages(spent, workers=embedding.workers()),
    )


def _number(found: sources.Sources, groups: list[sources.RowGroup], done: Keys) -> int | None:
    """How many rows are left, unless there are tars, which do not tell."""
    if found.tars:
        return None
    return max(0, len(found.images) + sum(group.rows for group in groups) - len(done))


Rows = list[tuple[Dataset, str]]
"""Datasets of what is not done, and the column in which each has its images."""


def _images(source: Place, found: sources.Sources, done: Keys) -> Rows:
    tables = sources.image_tables(source, found.images, done)
    return [(ray.data.from_arrow(tables), "source")] if tables else []


def _tars(source: Place, found: sources.Sources, known: Any, max_bytes: int) -> Rows:
    def tables(batch: pa.Table) -> Iterator[pa.Table]:
        for path in batch["path"].to_pylist():
            yield from sources.tar_rows(source, path, ray.get(known), max_bytes=max_bytes)

    paths = [{"path": path} for path in found.tars]
    return [(_read(paths, tables), "bytes")] if paths else []


def _parquets(source: Place, groups: list[sources.RowGroup], known: Any) -> Rows:
    def tables(batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            yield from sources.parquet_rows(source, sources.RowGroup(**row), ray.get(known))

    with_bytes = [group._asdict() for group in groups if group.has_bytes]
    with_names = [group._asdict() for group in groups if not group.has_bytes]
    rows = [(_read(with_bytes, tables), "bytes")] if with_bytes else []
    if with_names:
        # A row group has as many URLs as would keep one task busy for hours.
        named = _read(with_names, tables)
        cut = named.repartition(target_num_rows_per_block=sources.ROWS_AT_A_TIME)
        rows.append((cut, "source"))
    return rows


def _read(units: list[dict[str, Any]], tables: Callable[[pa.Table], Iterator[pa.Table]]) -> Dataset:
    """A dataset of what `tables` yields for each unit, in a task for each."""
    dataset = ray.data.from_items(units, override_num_blocks=len(units))
    return dataset.map_batches(tables, batch_format="pyarrow", batch_size=None, num_cpus=1)


def _write(
    embedded: Dataset,
    target: "Destination | LanceDestination",
    *,
    part_rows: int,
    advance: Callable[[int, int], None],
) -> list[WrittenPart]:
    """Writes blocks as they come, in tasks of their own, and commits each part when it is whole."""
    write = ray.remote(_write_part).options(num_cpus=0, max_retries=5)
    written: list[WrittenPart] = []
    under_way: list[Any] = []
    blocks: list[Any] = []
    rows, since = 0, 0.0

    def start() -> None:
        nonlocal blocks, rows
        if blocks:
            under_way.append(write.remote(target.next_unfinished(), target.model, *blocks))
            blocks, rows = [], 0

    def commit(*, wait: bool) -> None:
        while under_way:
            ready, _ = ray.wait(under_way, num_returns=1, timeout=None if wait else 0)
            if not ready:
                return
            under_way.remove(ready[0])
            part: WrittenPart = ray.get(ready[0])
            target.commit(part)
            written.append(part)
            advance(0, part.failed)

    for bundle in embedded.iter_internal_ref_bundles():
        number = bundle.num_rows()
        if not number:  # of a task whose rows are all done
            continue
        if not blocks:
            since = time.monotonic()
        blocks += [entry.ref for entry in bundle.blocks]
        rows += number
        advance(number, 0)
        if rows >= part_rows or time.monotonic() - since > PART_S:
            start()
        commit(wait=False)
    start()
    commit(wait=True)
    return written


def _write_part(place: Place, model: Model, *tables: pa.Table) -> WrittenPart:
    return write_part(place, model, tables)


def _probe(settings: ModelSettings, has_gpu: bool) -> Loaded:
    return asyncio.run(loaded_model(settings, has_gpu=has_gpu))


class _ModelActor:
    """`BulkModel` as Ray Data calls it."""

    def __init__(self, settings: ModelSettings, identity: bytes, has_gpu: bool) -> None:
        self._model = BulkModel(settings, identity, has_gpu=has_gpu)

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._model.embed(table)
