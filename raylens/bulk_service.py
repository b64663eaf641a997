"""Bulk embedding by a running service, which holds the model already.

Files are read here; URLs are fetched by the service.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from raylens.client.clients import Client, connect
from raylens.client.errors import ApiError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

    from deployments.bulk.places import Place

# Requests of one actor under way, each with a batch.
CONCURRENCY = 8


class ServiceCalls:
    """A `pipeline.Embedding`: actors that call the service."""

    def __init__(self, service: str, replicas: tuple[int, int] | None) -> None:
        """`service` is a URL, or "auto" for handles. Raises what clients raise."""
        from deployments.bulk.parts import Model

        self._service = service
        self._least, self._most = replicas or (1, 1)
        with client(service) as asked:
            card = asked.models()[0]
        identity = f"service {card['id']} {card['revision']} {card['precision']}"
        self.model = Model(card["id"], card["revision"], card["dimensions"], identity)

    def embed(self, dataset: "Dataset", column: str, place: "Place | None") -> "Dataset":
        from ray.data import ActorPoolStrategy

        return dataset.map_batches(
            Caller,
            fn_constructor_args=(self._service, column, place, self.model.dimensions),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1,
            compute=ActorPoolStrategy(
                min_size=self._least,
                max_size=self._most,
                max_concurrent_calls_per_actor=2,
                enable_true_multi_threading=True,
            ),
        )

    def workers(self) -> Mapping[str, int]:
        return {"service": 2 * self._most}


def client(service: str) -> Any:
    """The client for "auto" or a URL; with "auto", of the Ray that this process is in."""
    if service == "auto":
        return connect(max_concurrency=CONCURRENCY)
    return Client(service, max_concurrency=CONCURRENCY)


class Caller:
    """What each actor does."""

    def __init__(self, service: str, column: str, place: "Place | None", dimensions: int) -> None:
        self._client = client(service)
        self._column = column
        self._place = place
        self._dimensions = dimensions

    def __call__(self, table: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        began = time.time()
        items = [self._item(value) for value in table[self._column].to_pylist()]
        sent = [index for index, item in enumerate(items) if not isinstance(item, Exception)]
        rows: list[Any] = list(items)
        for index, row in zip(
            sent, self._client.embed((items[i] for i in sent), errors="return"), strict=True
        ):
            if isinstance(row, ConnectionError | TimeoutError):
                raise row  # the service is gone; what is done so far stays
            rows[index] = row
        said = {"stage": "service", "rows": len(rows), "busy_s": time.time() - began}
        said |= {"began": began, "ended": time.time()}
        bad = np.array([isinstance(row, Exception) for row in rows], bool)
        vectors = np.zeros((len(rows), self._dimensions), np.float32)
        for place in np.flatnonzero(~bad):
            vectors[place] = rows[place]
        kept = table.drop_columns([self._column]) if self._column == "bytes" else table
        columns = {
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), self._dimensions, mask=pa.array(bad)
            ),
            "error": pa.array([_said(row) for row in rows], pa.string()),
            "sha256": pa.array([_digest(item) for item in items], pa.string()),
            "width": pa.nulls(len(rows), pa.int32()),
            "height": pa.nulls(len(rows), pa.int32()),
            "_stages": pa.array(
                [json.dumps([said]), *[None] * len(rows)][: len(rows)], pa.string()
            ),
        }
        for name, values in columns.items():
            kept = kept.append_column(name, values)
        return kept

    def close(self) -> None:
        """Closes its connections; an actor's end with its process."""
        self._client.close()

    def _item(self, value: Any) -> Any:
        """Bytes, an object that names a URL, or why there is neither."""
        from deployments.bulk.places import Place

        if isinstance(value, bytes):
            return value
        if not value:
            return ApiError("There is no image in this row.", code="unsupported_image")
        if value.lower().startswith(("http://", "https://")):
            return {"url": value}
        place = self._place
        if place is not None and value.startswith(place.prefix):
            file = place._replace(path=value.removeprefix(place.prefix))
        else:
            file = Place.of(value)
        try:
            return file.read(most=1 << 30)
        except Exception as error:  # whatever object stores' libraries raise
            return ApiError(f"The file cannot be read ({error}).", code="path_not_found")


def _said(row: Any) -> str | None:
    if not isinstance(row, Exception):
        return None
    return f"{getattr(row, 'code', 'internal')}: {getattr(row, 'message', row)}"


def _digest(item: Any) -> str | None:
    return hashlib.sha256(item).hexdigest() if isinstance(item, bytes) else None
