"""Embeds whole datasets on Ray Data: `embed` for one's own, `run` for what `raylens bulk` does.

Starts or joins a Ray; what runs in it is in `deployments.bulk`.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import Dataset

INSTALL = "this needs Ray Data: pip install 'raylens[bulk]'"


class BulkError(Exception):
    """The run cannot go on; the message says why."""


def embed(
    dataset: "Dataset",
    column: str,
    *,
    config: Mapping[str, Any] | None = None,
    replicas: tuple[int, int] | None = None,
) -> "Dataset":
    """`dataset` with vectors of the images in `column`, which holds bytes, URLs or paths.

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
        from deployments.bulk import pipeline
        from deployments.config import load_settings

        pool = pipeline.Pool(load_settings(config or {}), replicas)
        return pipeline.embed(dataset, column, pool).drop_columns(["_stages"])


def run(
    source: str,
    destination: str,
    *,
    config: Mapping[str, Any],
    column: str | None = None,
    address: str | None = None,
    cpus: int | None = None,
    replicas: tuple[int, int] | None = None,
    advance: Callable[[int, int], None] = lambda rows, failed: None,
) -> Any:
    """Embeds all of `source` into parts in `destination`, and returns a `pipeline.Summary`.

    `advance` gets rows and failures as parts are written. Raises BulkError.
    """
    with _explained(), _ray(address, cpus):
        from deployments.bulk import pipeline
        from deployments.bulk.places import Place

        plan = pipeline.Plan(config, column=column, replicas=replicas)
        return pipeline.run(plan, Place.of(source), Place.of(destination), advance=advance)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raises what goes wrong as a BulkError with one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise BulkError(f"{INSTALL} ({error})") from None
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        ours = type(cause).__module__.startswith("deployments.")
        if isinstance(error, BulkError) or not ours:
            raise
        raise BulkError(str(cause)) from error


@contextlib.contextmanager
def _ray(address: str | None, cpus: int | None) -> Iterator[None]:
    """Joins the Ray at `address`, or starts one that ends with this process."""
    from raylens.cluster import node_address

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `raylens serve` starts its own
    import ray
    import ray.data

    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options["_node_ip_address"] = node_address()
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BulkError(f"no Ray at {address}: {error}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
