"""Embeds whole datasets on Ray Data: `embed` for one's own, `run` for what `raylens bulk` does.

Starts or joins a Ray; what runs in it is in `deployments.bulk`.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylens.progress import counted

if TYPE_CHECKING:
    from ray.data import Dataset

# Blocks of pixels and vectors under way; the rest of the memory is for the processes.
OBJECT_STORE_BYTES = 1024 * 1024 * 1024
# Errors of these are about what the user has named.
_USAGE = ("SourceError", "PlaceError", "SettingsError", "DestinationError", "ServiceUrlError")


class BulkError(Exception):
    """The run cannot go on; the message says why."""

    usage = False
    """Whether it was called wrongly."""


def embed(
    dataset: "Dataset",
    column: str,
    *,
    root: str | None = None,
    config: Mapping[str, Any] | None = None,
    replicas: tuple[int, int] | None = None,
) -> "Dataset":
    """`dataset` with vectors of the images in `column`, which holds bytes, URLs or paths.
    Files are read only below `root`, a folder or URI.

    ```python
    vectors = raylens.bulk.embed(ray.data.read_parquet("s3://bucket/photos"), "url")
    vectors.write_parquet("s3://bucket/vectors")
    ```

    Adds the columns `embedding` (float32, null where it failed), `error` ("code: message", null
    where it did not), `sha256`, `width` and `height`. `config` has raylens's own settings, as
    `args` in a Serve config. The model runs in `replicas` actors, the least and the most; by
    default in up to one on each node, or for each GPU. Loads it once to begin with. Raises
    BulkError.
    """
    with _explained():
        from deployments.bulk.pipeline import ActorPool
        from deployments.bulk.places import Place
        from deployments.config import load_settings

        below = None if root is None else Place.of(root)
        pool = ActorPool(load_settings(config or {}), replicas)
        return pool.embed(dataset, column, below).drop_columns(["_stages"])


def run(
    source: str,
    destination: str,
    *,
    config: Mapping[str, Any],
    model: str | None = None,
    column: str | None = None,
    root: str | None = None,
    address: str | None = None,
    cpus: int | None = None,
    replicas: tuple[int, int] | None = None,
    service: str | None = None,
    progress: bool = False,
) -> Any:
    """Embeds all of `source` that `destination` does not have; returns a `pipeline.Summary`.

    A `destination` that ends in `.lance` becomes a Lance dataset, all others folders of Parquet
    parts. `model` is the id of another model than the config's. Parquet files may name files below
    `root`, by default the source's own folder. `service` is a running one's URL, or "auto" for the
    one in the cluster at `address`; without, actors hold the model. Raises BulkError, and
    ConnectionError without a service.
    """
    with _explained(), _ray(address, cpus, serves=service == "auto"):
        from deployments.bulk import pipeline
        from deployments.bulk.places import Place
        from deployments.config import for_another_model, load_settings

        if model is not None:
            config = for_another_model(config, model)
        places = Place.of(source), Place.of(destination)
        pipeline.destination_kind(places[1])  # raises before a model is loaded
        embedding: pipeline.Embedding
        if service is None:
            embedding = pipeline.ActorPool(load_settings(config), replicas)
        else:
            from raylens.bulk_service import ServiceCalls

            embedding = ServiceCalls(service, replicas)
        return pipeline.run(
            *places,
            embedding,
            root=None if root is None else Place.of(root),
            column=column,
            counting=lambda rows: counted(rows, shown=progress),
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raises what goes wrong as a BulkError with one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "lance":
            raise BulkError(
                "a destination that ends in .lance needs Lance: pip install 'raylens[lance]'"
            ) from None
        raise BulkError(f"this needs Ray Data: pip install 'raylens[bulk]' ({error})") from None
    except BulkError:
        raise
    except Exception as error:
        told = BulkError(str(error).strip().rpartition("\n")[2])
        for cause in _causes(error):
            module = type(cause).__module__
            if module.startswith(("deployments.", "raylens.")):
                told = BulkError(str(cause))
                told.usage = type(cause).__name__ in _USAGE
                break
            # Ray's own errors are also of the class of what they wrap, with a whole traceback.
            if isinstance(cause, ConnectionError | TimeoutError) and not module.startswith("ray."):
                # Ray Data appends lines of advice about itself.
                raise type(cause)(str(cause).partition("\n")[0]) from None
        raise told from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, as Ray or Python do."""
    cause: Any = error
    while isinstance(cause, BaseException):
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__


@contextlib.contextmanager
def _ray(address: str | None, cpus: int | None, *, serves: bool) -> Iterator[None]:
    """Joins the Ray at `address`, or starts one that ends with this process; does neither if this
    process is in a Ray already. `serves` says that `raylens serve` has started that Ray."""
    from raylens.cluster import node_address

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data keeps arguments of its actors in the object store, and Ray warns of it each time.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address is None or serves:
        # As `raylens serve` starts its own. Not for every cluster: with a token, actors in one
        # without (Ray 2.60) are cancelled before they start.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address or ("auto" if serves else None)}
    if address is None and not serves:
        from deployments.threads import thread_count

        options = {
            "address": "local",
            # One more than there are: the model's actor takes one, and as many loading tasks as
            # there are processors keep it busy. With one less, they were the bottleneck.
            "num_cpus": cpus or thread_count("auto") + 1,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": node_address(),
        }
    try:
        with _silent():  # Ray tells of the log level itself
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BulkError(f"no Ray at {options['address']}: {error}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what is written to stderr, in C++ too, from the terminal."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
