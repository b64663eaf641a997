"""Bulk embedding as a Ray Data pipeline: tasks load images, actors hold the model, parts are
written as vectors arrive.

`raylens.bulk` starts it; what tasks and actors do is in the other modules.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from deployments.config import load_settings
from deployments.settings import MIB, ModelSettings, Settings
from deployments.wire import Loaded

# A part is written when it has this many rows, or when its first rows have waited this long, so
# that a kill costs no more than that.
PART_ROWS = 8192
PART_S = 30.0
# Blocks of pixels that wait for the model, in all. More would only take memory.
WAITING_BYTES = 512 * MIB


@dataclass(frozen=True)
class Plan:
    """What a run is given: see `raylens.bulk`."""

    args: Mapping[str, Any]
    """A Serve config's own settings of raylens."""
    column: str | None = None
    replicas: tuple[int, int] | None = None
    """The least and the most actors; None for one on each node, or GPU."""
    part_rows: int = PART_ROWS


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


@dataclass
class Pool:
    """The actors that hold the model, and the model itself."""

    settings: Settings
    replicas: tuple[int, int] | None = None
    has_gpu: bool = field(init=False)
    loaded: Loaded = field(init=False)
    size: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Loads the model once, in a task, which exports it if need be. Raises what that raises."""
        model = self.settings.model
        gpus = int(ray.cluster_resources().get("GPU", 0))
        self.has_gpu = gpus > 0 and model.device != "cpu"
        nodes = sum(1 for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1)
        most = gpus if self.has_gpu else max(1, nodes)
        self.size = self.replicas or (1, most)
        probe = ray.remote(_probe).options(**self.resources, max_retries=1)
        self.loaded = ray.get(probe.remote(model, self.has_gpu))

    @property
    def resources(self) -> dict[str, Any]:
        """Of each actor. One logical processor, whatever its threads take: loading needs the
        others, and gets no more than the model leaves, because blocks wait for it."""
        return {"num_cpus": 1, "num_gpus": 1 if self.has_gpu else 0}

    @property
    def loading_tasks(self) -> int:
        """How many can run beside the actors."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)) - self.size[1])


def embed(dataset: Dataset, column: str, pool: Pool, *, place: Place | None = None) -> Dataset:
    """`dataset` with vectors of the images in `column`, and what is known of them.

    With the column `_stages` of `stages`, which a user has no use for.
    """
    config = LoadConfig(pool.settings, pool.loaded.pixels)
    decoded = dataset.map_batches(
        lambda table: loader(config).load(table, column, place),
        batch_format="pyarrow",
        batch_size=sources.ROWS_AT_A_TIME,
        zero_copy_batch=True,
        num_cpus=1,
    )
    least, most = pool.size
    return decoded.map_batches(
        _ModelActor,
        fn_constructor_args=(pool.settings.model, pool.loaded.identity, pool.has_gpu),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=3,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        scheduling_strategy="SPREAD",
        **pool.resources,
    )


def run(
    plan: Plan, source: Place, destination: Place, *, advance: Callable[[int, int], None]
) -> Summary:
    """Embeds all of `source` that `destination` does not have yet."""
    found = sources.find(source, leave_out=destination)
    pool = Pool(load_settings(plan.args), plan.replicas)
    model = Model(
        pool.loaded.id, pool.loaded.revision, pool.loaded.dimensions, pool.loaded.identity.hex()
    )
    target = Destination(destination, model)
    done = target.done()
    began = time.time()
    parts: list[WrittenPart] = []
    waiting = ExecutionResources.for_limits(object_store_memory=WAITING_BYTES * pool.size[1])
    ray.data.DataContext.get_current().execution_options.resource_limits = waiting
    for dataset, column in _datasets(plan, source, found, done):
        embedded = embed(dataset, column, pool, place=source)
        parts += _write(embedded, model, target, part_rows=plan.part_rows, advance=advance)
    target.close()
    spent = [one for part in parts for one in part.stages]
    workers = {"read": pool.loading_tasks, "decode": pool.loading_tasks, "model": pool.size[1]}
    first = min((one["began"] for one in spent), default=began)
    return Summary(
        rows=sum(part.rows for part in parts),
        failed=sum(part.failed for part in parts),
        before=len(done),
        skipped=found.skipped,
        seconds=time.time() - first,
        stages=stages(spent, workers=workers),
    )


def _datasets(
    plan: Plan, source: Place, found: sources.Sources, done: Keys
) -> list[tuple[Dataset, str]]:
    """Rows of all that is not done, and the column in which each dataset has its images."""
    datasets: list[tuple[Dataset, str]] = []
    tables = sources.image_tables(source, found.images, done)
    if tables:
        datasets.append((ray.data.from_arrow(tables), "source"))
    known = ray.put(done)  # read by tasks, which filter their rows
    if found.tars:

        def tar_tables(batch: pa.Table) -> Iterator[pa.Table]:
            for path in batch["path"].to_pylist():
                yield from sources.tar_rows(source, path, ray.get(known))

        datasets.append((_read([{"path": path} for path in found.tars], tar_tables), "bytes"))
    if found.parquets:
        datasets.append(_parquet(plan, source, found, known))
    return datasets


def _parquet(
    plan: Plan, source: Place, found: sources.Sources, known: Any
) -> tuple[Dataset, str]:
    column = sources.image_column(source, found.parquets[0], plan.column)

    def parquet_tables(batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            yield from sources.parquet_rows(
                source, sources.RowGroup(**row), column, ray.get(known)
            )

    groups = [group._asdict() for group in sources.row_groups(source, found.parquets)]
    dataset = _read(groups, parquet_tables)
    if sources.holds_bytes(source, found.parquets[0], column):
        return dataset, "bytes"
    # A row group has as many URLs as would keep one task busy for hours.
    return dataset.repartition(target_num_rows_per_block=sources.ROWS_AT_A_TIME), "source"


def _read(units: list[dict[str, Any]], tables: Callable[[pa.Table], Iterator[pa.Table]]) -> Dataset:
    """A dataset of what `tables` yields for each unit, in a task for each."""
    dataset = ray.data.from_items(units, override_num_blocks=len(units))
    return dataset.map_batches(
        tables, batch_format="pyarrow", batch_size=None, zero_copy_batch=True, num_cpus=1
    )


def _write(
    embedded: Dataset,
    model: Model,
    target: Destination,
    *,
    part_rows: int,
    advance: Callable[[int, int], None],
) -> list[WrittenPart]:
    """Writes blocks as they come, in tasks of their own, and commits each part when it is whole."""
    write = ray.remote(write_part_task).options(num_cpus=0, max_retries=5)
    written: list[WrittenPart] = []
    under_way: list[Any] = []
    blocks: list[Any] = []
    rows, since = 0, 0.0

    def start() -> None:
        nonlocal blocks, rows
        if blocks:
            under_way.append(write.remote(target.next_unfinished(), model, *blocks))
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
            advance(part.rows, part.failed)

    for bundle in embedded.iter_internal_ref_bundles():
        if not blocks:
            since = time.monotonic()
        blocks += [entry.ref for entry in bundle.blocks]
        rows += bundle.num_rows() or 0
        if rows >= part_rows or time.monotonic() - since > PART_S:
            start()
        commit(wait=False)
    start()
    commit(wait=True)
    return written


def write_part_task(place: Place, model: Model, *tables: pa.Table) -> WrittenPart:
    return write_part(place, model, tables)


def _probe(settings: ModelSettings, has_gpu: bool) -> Loaded:
    return asyncio.run(loaded_model(settings, has_gpu=has_gpu))


class _ModelActor:
    """`BulkModel` as Ray Data calls it."""

    def __init__(self, settings: ModelSettings, identity: bytes, has_gpu: bool) -> None:
        self._model = BulkModel(settings, identity, has_gpu=has_gpu)

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._model.embed(table)
