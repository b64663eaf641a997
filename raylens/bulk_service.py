"""Bulk embedding by a running service, which holds the model already.

Files are read here; URLs are fetched by the service.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raylens.client.clients import Client, connect
from raylens.client.errors import ApiError
from raylens.client.items import Upload
from raylens.embed.files import width_height

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

    from deployments.bulk.places import Place

# Requests of one actor under way, each with a batch.
CONCURRENCY = 8
# A service that restarts is waited for, two minutes.
RETRIES = 12
# Of a batch; a service that is busy takes longer than for one image.
TIMEOUT_S = 300.0
# No service takes such images; what its own limit is, its client knows.
MOST_IMAGE_BYTES = 256 * 1024 * 1024


class ServiceUrlError(Exception):
    """The service's URL or the key is none; the message says why."""


@dataclass(frozen=True)
class Service:
    """How the service is reached, from any machine: what is in the environment of the command is
    not in that of a worker."""

    url: str
    """Or "auto", for handles of the Ray that the process is in."""
    key: str | None = field(repr=False)  # it must not get into logs

    def client(self, *, retries: int) -> Any:
        if self.url == "auto":
            return connect(max_concurrency=CONCURRENCY, retries=retries, timeout_s=TIMEOUT_S)
        return Client(
            self.url,
            api_key=self.key,
            max_concurrency=CONCURRENCY,
            retries=retries,
            timeout_s=TIMEOUT_S,
        )


class ServiceCalls:
    """A `pipeline.Embedding`: actors that call the service."""

    max_image_bytes = MOST_IMAGE_BYTES

    def __init__(self, url: str, replicas: tuple[int, int] | None) -> None:
        """`url` may be "auto", for handles. Raises ServiceUrlError and what clients raise."""
        from deployments.bulk.parts import Model

        self.service = Service(url, os.environ.get("RAYLENS_API_KEY"))
        self._least, self._most = replicas or (1, 1)
        try:
            client = self.service.client(retries=3)
        except ValueError as error:
            raise ServiceUrlError(str(error)) from None
        with client:
            card = client.models()[0]
        if card.get("vectors_per_image", 1) > 1:
            raise ServiceUrlError(
                f"{card['id']} gives {card['vectors_per_image']} vectors for each image, and bulk "
                "jobs keep one"
            )
        identity = f"service {card['id']} {card['revision']} {card['precision']}"
        self.model = Model(card["id"], card["revision"], card["dimensions"], identity)

    def embed(self, dataset: "Dataset", column: str, root: "Place | None") -> "Dataset":
        from ray.data import ActorPoolStrategy

        return dataset.map_batches(
            Caller,
            fn_constructor_args=(self.service, column, root, self.model.dimensions),
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


class Caller:
    """What each actor does."""

    def __init__(
        self, service: Service, column: str, root: "Place | None", dimensions: int
    ) -> None:
        self._client = service.client(retries=RETRIES)
        self._column = column
        self._root = root
        self._dimensions = dimensions

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """`table` with the columns of a part. Raises ConnectionError or TimeoutError if the service
        is gone; what is done so far stays."""
        import pyarrow as pa

        from deployments.bulk import unread

        began = time.time()
        values = table[self._column].to_pylist()
        images = [_Image(value, self._root) for value in values]
        errors = [
            why or image.refused for why, image in zip(unread.reasons(table), images, strict=True)
        ]
        sent = [index for index, error in enumerate(errors) if error is None]
        vectors = np.zeros((len(values), self._dimensions), np.float32)
        for index, row in zip(sent, self._embed([images[i] for i in sent]), strict=True):
            if isinstance(row, Exception):
                errors[index] = _said(row)
            else:
                vectors[index] = row
        spent = {"stage": "service", "rows": len(values), "busy_s": time.time() - began}
        spent |= {"began": began, "ended": time.time()}
        bad = pa.array([error is not None for error in errors], pa.bool_())
        said = [json.dumps([spent]), *[None] * len(values)][: len(values)]
        columns = {
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), self._dimensions, mask=bad
            ),
            "error": pa.array(errors, pa.string()),
            "sha256": pa.array([image.sha256 for image in images], pa.string()),
            "width": pa.array([image.size[0] for image in images], pa.int32()),
            "height": pa.array([image.size[1] for image in images], pa.int32()),
            "_stages": pa.array(said, pa.string()),
        }
        kept = table.drop_columns([n for n in ("bytes", unread.COLUMN) if n in table.column_names])
        for name, column in columns.items():
            kept = kept.append_column(name, column)
        return kept

    def close(self) -> None:
        """Closes its connections; an actor's end with its process."""
        self._client.close()

    def _embed(self, images: "list[_Image]") -> list[Any]:
        """A vector for each, or why there is none."""
        try:
            rows: list[Any] = self._client.embed((image.item for image in images), errors="return")
        except ApiError as error:
            if error.status == 429:  # for two minutes; the others' turn is over some day
                return [error] * len(images)
            if (error.status or 0) >= 500:
                raise ConnectionError(f"the service does not work: {error.message}") from None
            raise
        return rows


class _Image(Upload):
    """A row's image, which is read when it is sent."""

    def __init__(self, value: Any, root: "Place | None") -> None:
        self._file: Place | None = None
        self._data = value if isinstance(value, bytes) else b""
        self.refused: str | None = None
        self.sha256: str | None = None
        self.size: tuple[int, int] | tuple[None, None] = (None, None)
        self.item: Any = self
        if isinstance(value, bytes):
            return
        if not isinstance(value, str) or not value:
            self.refused = "unsupported_image: There is no image in this row."
        elif value.lower().startswith(("http://", "https://")):
            self.item = {"url": value}
        else:
            self._find(value, root)

    def weight(self) -> int:
        return len(self._data) if self._file is None else self._file.size()

    def read(self, max_bytes: int) -> bytes:
        data = self._data if self._file is None else self._file.read(most=max_bytes)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size = width_height(data)
        return data

    def _find(self, name: str, root: "Place | None") -> None:
        from deployments.bulk import unread

        if root is None:
            self.refused = unread.NO_ROOT
            return
        try:
            self._file = root.below(name)
        except FileNotFoundError:
            self.refused = unread.not_below(root)


def _said(error: Exception) -> str:
    from deployments.bulk.unread import unreadable

    if isinstance(error, ApiError):
        return f"{error.code}: {error.message}"
    if isinstance(error, FileNotFoundError):
        return "path_not_found: There is no such file."
    return unreadable(error)
