"""The result: Parquet parts in a folder or object store, each of them whole or not there.

A part is written under a name that readers pass over, and renamed by the one process that leads
the run; what a killed run has left unfinished never counts. Knows nothing of Ray.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, parquet

from deployments.bulk import unread
from deployments.bulk.lead import DestinationError, Lead
from deployments.bulk.places import Place, PlaceError

# Not the key of `raylens embed`, whose files say other things of their model.
_METADATA = b"raylens.bulk"
# What failed for one of these may be past the next time.
_PASSING = (
    "fetch_timeout",
    "fetch_bad_gateway",
    "unavailable",
    "overloaded",
    "deadline_exceeded",
    unread.CODE,
)
PASSING_ERROR = f"^({'|'.join(_PASSING)}):"
"""A regular expression for the errors of rows that are to be tried again."""

Keys = NDArray[np.bytes_]
"""(N,) hashes of what is done, sorted."""


class WrittenPart(NamedTuple):
    """A part that is whole and not yet committed."""

    path: str
    rows: int
    failed: int
    stages: list[dict[str, Any]]
    """What the stages said about their work on it, see `stages`."""


class Model(NamedTuple):
    """What the vectors of one destination have in common."""

    name: str
    revision: str | None
    dimensions: int
    identity: str
    """Vectors of different identities cannot be compared."""


def schema(model: Model) -> pa.Schema:
    """Of every part. `origin` is the row of the Parquet file that named the source."""
    return pa.schema(
        [
            ("source", pa.string()),
            ("origin", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("embedding", pa.list_(pa.float32(), model.dimensions)),
            ("error", pa.string()),
            ("model", pa.string()),
            ("revision", pa.string()),
        ],
        metadata={_METADATA: json.dumps(model._asdict())},
    )


class Destination:
    """A folder of parts, led by one run at a time."""

    def __init__(self, place: Place, model: Model) -> None:
        """Takes the folder over from earlier runs, and removes what they left unfinished.

        Raises DestinationError or PlaceError if it holds anything else.
        """
        self.place = place
        self.model = model
        self._parts = self._committed()
        self._number = max((_number(path) for path in self._parts), default=-1) + 1
        self._lead = Lead(place)

    def done(self) -> Keys:
        """The keys of all rows in the parts.

        Rows whose failure may be past are first taken out of their parts: they are to be tried
        again, and readers must find each source once. Raises DestinationError.
        """
        keys = []
        for path in self._parts:
            table = parquet.read_table(
                path, columns=["source", "origin", "error"], filesystem=self.place.system
            )
            stays = compute.invert(_is_passing(table["error"]))
            if not compute.all(stays, min_count=0).as_py():
                self._keep(path, stays)
                table = table.filter(stays)
            keys.append(keys_of(table["origin"].to_pylist(), table["source"].to_pylist()))
        return in_order(keys)

    def next_unfinished(self) -> Place:
        """Where the next part is to be written."""
        return self._lead.next_unfinished()

    def commit(self, part: WrittenPart) -> None:
        """Makes a part count. Raises DestinationError if another run has taken over."""
        self._lead.check()
        final = self.place / f"part-{self._number:06d}.parquet"
        self.place._replace(path=part.path).move_to(final)
        self._number += 1

    def _keep(self, path: str, stays: pa.ChunkedArray) -> None:
        """Replaces a part by those of its rows that stay."""
        table = parquet.read_table(path, filesystem=self.place.system).filter(stays)
        try:
            if not len(table):
                self.place.system.delete_file(path)
                return
            shorter = self.next_unfinished()
            shorter.make_folder()
            parquet.write_table(table, shorter.path, filesystem=self.place.system)
            shorter.move_to(self.place._replace(path=path))
        except OSError as error:
            raise DestinationError(f"{self.place}: cannot be written ({error})") from None

    def close(self) -> None:
        self._lead.close()

    def _committed(self) -> list[str]:
        if not self.place.exists():
            return []
        if self.place.is_file():
            raise DestinationError(f"{self.place} is a file; name a folder for the parts")
        try:
            names = list(self.place.files())
        except PlaceError as error:
            raise DestinationError(str(error)) from None
        paths = [path for path in names if not self._is_passed_over(path)]
        for path in paths:
            self._check(path)
        return paths

    def _is_passed_over(self, path: str) -> bool:
        """Whether it, or a folder that it is in, has a name that readers pass over too."""
        names = path.removeprefix(f"{self.place.path}/").split("/")
        return any(name.startswith((".", "_")) for name in names)

    def _check(self, path: str) -> None:
        """Raises DestinationError for what is no part, or one of another model."""
        known: Mapping[bytes, bytes] = {}
        if _number(path) >= 0:
            try:
                known = parquet.read_schema(path, filesystem=self.place.system).metadata or {}
            except (OSError, pa.ArrowInvalid):
                known = {}
        check_model(self.place, self.model, known, path.rpartition("/")[2])


def check_model(place: Place, model: Model, metadata: Mapping[bytes, bytes], name: str) -> None:
    """Raises DestinationError if the file `name` with this metadata is not a result of `model`."""
    if _METADATA not in metadata:
        raise DestinationError(f"{place} holds other files ({name}); name an empty folder")
    other = Model(**json.loads(metadata[_METADATA]))
    if other.identity != model.identity:
        raise DestinationError(
            f"{place} holds vectors of {other.name} (revision {other.revision}), made "
            f"with other settings than {model.name} has here; name another folder"
        )


def keys_of(origins: Iterable[str | None], sources: Iterable[str]) -> Keys:
    """(N,) what identifies each row: where its source was named, or the source itself."""
    names = (origin or source for origin, source in zip(origins, sources, strict=True))
    digests = [hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names]
    return np.array(digests, "S16")


def in_order(keys: Sequence[Keys]) -> Keys:
    """All of these, as `is_done` wants them."""
    return np.sort(np.concatenate(keys)) if keys else np.empty(0, "S16")


def is_done(keys: Keys, done: Keys) -> NDArray[np.bool_]:
    """(N,) whether each key is among those of `done`, which are sorted."""
    if not len(done):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(done, keys).clip(max=len(done) - 1)
    found: NDArray[np.bool_] = done[places] == keys
    return found


def write_part(place: Place, model: Model, tables: Iterable[pa.Table]) -> WrittenPart:
    """Writes rows, as the model's actors give them, as one file."""
    rows = failed = 0
    stages: list[dict[str, Any]] = []
    columns = schema(model)
    place.make_folder()
    with parquet.ParquetWriter(place.path, columns, filesystem=place.system) as writer:
        for table in tables:
            if not len(table):  # it may lack columns
                continue
            rows += len(table)
            failed += len(table) - table["error"].null_count
            stages += [s for text in table["_stages"].drop_null() for s in json.loads(text.as_py())]
            writer.write_table(_with_model(table, model, columns))
    return WrittenPart(place.path, rows, failed, stages)


def _with_model(table: pa.Table, model: Model, columns: pa.Schema) -> pa.Table:
    nulls = pa.nulls(len(table), pa.string())
    every = {
        "origin": nulls,
        **{name: table[name] for name in table.column_names},
        "model": pa.repeat(pa.scalar(model.name, pa.string()), len(table)),
        "revision": pa.repeat(pa.scalar(model.revision, pa.string()), len(table)),
    }
    return pa.table([every[name] for name in columns.names], schema=columns)


def _is_passing(errors: pa.ChunkedArray) -> pa.ChunkedArray:
    return compute.fill_null(compute.match_substring_regex(errors, PASSING_ERROR), False)


def _number(path: str) -> int:
    """Of the part at `path`; -1 if it is none."""
    name = path.rpartition("/")[2]
    digits = name.removeprefix("part-").removesuffix(".parquet")
    return int(digits) if name == f"part-{digits}.parquet" and digits.isdecimal() else -1
