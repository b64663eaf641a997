"""What is to be embedded: images in folders, rows of Parquet files, members of tars.

Finds and reads them as tables of rows (`source`, and where they differ `origin` and `bytes`).
Leaves reading files and URLs one by one to `loading`.
"""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from deployments.bulk.parts import Keys, is_done, keys_of
from deployments.bulk.places import Place, PlaceError

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"}
)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
# Names that columns of images usually have, for a file whose column is not named by the user.
USUAL_COLUMNS = ("image", "bytes", "image_bytes", "jpg", "url", "image_url", "path", "image_path")

ROWS_AT_A_TIME = 128


class SourceError(Exception):
    """The source holds nothing that can be embedded; the message says why."""


class Sources(NamedTuple):
    """All files below a place that hold images, by their kind."""

    images: list[str]
    parquets: list[str]
    tars: list[str]
    skipped: int
    """Files of other kinds, and those whose names are not UTF-8, which no column can hold."""


class RowGroup(NamedTuple):
    """A part of a Parquet file that one task reads."""

    path: str
    number: int
    first_row: int
    rows: int


def find(place: Place, *, leave_out: Place | None = None) -> Sources:
    """What is below `place`, except below `leave_out`. Raises PlaceError or SourceError."""
    found = Sources([], [], [], 0)
    skipped = 0
    for path in place.files():
        if leave_out is not None and f"{place.prefix}{path}".startswith(f"{leave_out}/"):
            continue
        name = path.lower()
        if not _is_utf8(name):
            skipped += 1
        elif name.endswith(TAR_ENDINGS):
            found.tars.append(path)
        elif name.endswith(".parquet"):
            found.parquets.append(path)
        elif PurePosixPath(name).suffix in IMAGE_ENDINGS or path == place.path:
            found.images.append(path)
        else:
            skipped += 1
    if not any(found[:3]):
        raise SourceError(
            f"{place}: there are no images, Parquet files or tars"
            + (f" among its {skipped:,} files" if skipped else "")
        )
    return found._replace(skipped=skipped)


def image_tables(place: Place, paths: Iterable[str], done: Keys) -> list[pa.Table]:
    """The images that are not done, in tables of a size for one task."""
    names = [f"{place.prefix}{path}" for path in paths]
    left = ~is_done(keys_of([None] * len(names), names), done)
    todo = pa.array(names, pa.string()).filter(pa.array(left))
    return [
        pa.table({"source": todo.slice(start, ROWS_AT_A_TIME)})
        for start in range(0, len(todo), ROWS_AT_A_TIME)
    ]


def row_groups(place: Place, paths: Iterable[str]) -> Iterator[RowGroup]:
    for path in paths:
        try:
            metadata = parquet.read_metadata(path, filesystem=place.system)
        except (OSError, pa.ArrowInvalid) as error:
            raise PlaceError(f"{place.prefix}{path}: no readable Parquet file ({error})") from None
        first = 0
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            yield RowGroup(path, number, first, rows)
            first += rows


def image_column(place: Place, path: str, wanted: str | None) -> str:
    """The column of images: the `wanted` one, or the first with a usual name.

    Raises SourceError if it is not there, or holds neither bytes nor strings.
    """
    columns = parquet.read_schema(path, filesystem=place.system)
    names = [wanted] if wanted else [n for n in USUAL_COLUMNS if n in columns.names]
    for name in names:
        if name in columns.names and _holds_images(columns.field(name).type):
            return name
    what = f"no column {wanted!r} of" if wanted else "no column that looks like"
    raise SourceError(
        f"{place.prefix}{path} has {what} bytes, URLs or paths; name it with --column, one of "
        + ", ".join(columns.names)
    )


def holds_bytes(place: Place, path: str, column: str) -> bool:
    kind = parquet.read_schema(path, filesystem=place.system).field(column).type
    return not _is_string(kind)


def parquet_rows(place: Place, group: RowGroup, column: str, done: Keys) -> Iterator[pa.Table]:
    """The rows of a row group that are not done: `source`, `origin`, and `bytes` if it has them."""
    name = f"{place.prefix}{group.path}"
    row = group.first_row
    with parquet.ParquetFile(group.path, filesystem=place.system) as file:
        for batch in file.iter_batches(ROWS_AT_A_TIME, [group.number], [column]):
            origins = [f"{name}#{row + index}" for index in range(len(batch))]
            row += len(batch)
            table = _rows(batch.column(0), origins)
            left = ~is_done(keys_of(origins, origins), done)
            yield table.filter(pa.array(left))


def _rows(values: pa.Array, origins: list[str]) -> pa.Table:
    named = pa.array(origins, pa.string())
    if pa.types.is_struct(values.type):  # as Hugging Face's datasets keep images
        values = values.field("bytes")
    if _is_string(values.type):
        return pa.table({"source": values.cast(pa.string()).fill_null(""), "origin": named})
    return pa.table({"source": named, "origin": named, "bytes": values.cast(pa.binary())})


def tar_rows(place: Place, path: str, done: Keys) -> Iterator[pa.Table]:
    """The images in a tar that are not done: `source`, and their `bytes`. In one pass, because
    reading at random from an object store would take a request for each."""
    names: list[str] = []
    data: list[bytes] = []
    with (
        place.system.open_input_stream(path, compression=None) as file,
        tarfile.open(fileobj=file, mode="r|*") as tar,
    ):
        for member in tar:
            if PurePosixPath(member.name.lower()).suffix not in IMAGE_ENDINGS:
                continue
            name = f"{place.prefix}{path}/{member.name}"
            if not member.isreg() or is_done(keys_of([None], [name]), done)[0]:
                continue
            content = tar.extractfile(member)
            names.append(name)
            data.append(content.read() if content is not None else b"")
            if len(names) == ROWS_AT_A_TIME:
                yield _tar_table(names, data)
                names, data = [], []
    yield _tar_table(names, data)


def _tar_table(names: list[str], data: list[bytes]) -> pa.Table:
    return pa.table({"source": pa.array(names, pa.string()), "bytes": pa.array(data, pa.binary())})


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_string(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
