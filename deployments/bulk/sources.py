"""What is to be embedded: images in folders, rows of Parquet files, members of tars.

Finds and reads them as tables of rows (`source`, and where they differ `origin` and `bytes`). What
cannot be read is a row too, which says so in the column of `unread`. Leaves reading files and URLs
one by one to `loading`.
"""

import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple, Self

import pyarrow as pa
from pyarrow import parquet

from deployments.bulk.parts import Keys, is_done, keys_of
from deployments.bulk.places import Place
from deployments.bulk.unread import COLUMN as UNREAD
from deployments.bulk.unread import unreadable
from deployments.errors import ImageTooLarge
from deployments.settings import MIB

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"}
)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
# Names that columns of images usually have, for a file whose column is not named by the user.
USUAL_COLUMNS = ("image", "bytes", "image_bytes", "jpg", "url", "image_url", "path", "image_path")

# Of a table, and about the bytes of its images.
ROWS_AT_A_TIME = 128
BYTES_AT_A_TIME = 64 * MIB
# Parquet files whose footers are read at the same time.
_FOOTERS = 16


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
    """A part of a Parquet file that one task reads, or what is wrong with the whole file."""

    path: str
    number: int
    first_row: int
    rows: int
    column: str
    has_bytes: bool
    unread: str | None = None


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


def row_groups(place: Place, paths: Iterable[str], wanted: str | None) -> list[RowGroup]:
    """Of all files, with the columns of their images: the `wanted` ones, or the first with a usual
    name. Raises SourceError if no file has one."""
    with ThreadPoolExecutor(_FOOTERS) as threads:
        found = list(threads.map(partial(_row_groups, place, wanted), paths))
    refused = [groups for groups in found if isinstance(groups, SourceError)]
    if refused and len(refused) == len(found):
        raise refused[0]
    return [
        group
        for path, groups in zip(paths, found, strict=True)
        for group in ([_unread_file(path, groups)] if isinstance(groups, SourceError) else groups)
    ]


def _row_groups(place: Place, wanted: str | None, path: str) -> list[RowGroup] | SourceError:
    try:
        metadata = parquet.read_metadata(path, filesystem=place.system)
        columns = metadata.schema.to_arrow_schema()
    except Exception as error:  # whatever pyarrow and object stores' libraries raise
        return [_unread_file(path, error)]
    column = _image_column(columns, wanted)
    if column is None:
        what = f"no column {wanted!r} of" if wanted else "no column that looks like"
        return SourceError(
            f"{place.prefix}{path} has {what} bytes, URLs or paths; name it with --column, one of "
            + ", ".join(columns.names)
        )
    has_bytes = not _is_string(columns.field(column).type)
    first = 0
    groups = []
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        groups.append(RowGroup(path, number, first, rows, column, has_bytes))
        first += rows
    return groups


def _image_column(columns: pa.Schema, wanted: str | None) -> str | None:
    for name in [wanted] if wanted else USUAL_COLUMNS:
        if name in columns.names and _holds_images(columns.field(name).type):
            return name
    return None


def _unread_file(path: str, error: Exception) -> RowGroup:
    return RowGroup(path, 0, 0, 1, "", has_bytes=True, unread=unreadable(error))


def parquet_rows(place: Place, group: RowGroup, done: Keys) -> Iterator[pa.Table]:
    """The rows of a row group that are not done: `source`, `origin`, and `bytes` if it has them.

    If it cannot be read on, the first row that cannot stands for all that are left.
    """
    name = f"{place.prefix}{group.path}"
    if group.unread is not None:
        yield _unread_table(name, None, group)
        return
    row = group.first_row
    try:
        with parquet.ParquetFile(group.path, filesystem=place.system) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, [group.number], [group.column]):
                origins = [f"{name}#{row + index}" for index in range(len(batch))]
                table = _rows(batch.column(0), origins)
                row += len(batch)
                left = ~is_done(keys_of(origins, origins), done)
                yield table.filter(pa.array(left))
    except Exception as error:  # whatever pyarrow and object stores' libraries raise
        said = f"{unreadable(error)} (rows {row} to {group.first_row + group.rows - 1})"
        yield _unread_table(f"{name}#{row}", f"{name}#{row}", group._replace(unread=said))


def _rows(values: pa.Array, origins: list[str]) -> pa.Table:
    named = pa.array(origins, pa.string())
    if pa.types.is_struct(values.type):  # as Hugging Face's datasets keep images
        values = values.field("bytes")
    if _is_string(values.type):
        return _table(_text(values), named, None, None)
    return _table(named, named, values.cast(pa.binary()), None)


def _text(values: pa.Array) -> pa.Array:
    """Strings that are UTF-8, as Parquet files should have them and need not."""
    values = values.cast(pa.string()).fill_null("")
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        data = values.cast(pa.binary()).to_pylist()
        return pa.array([text.decode("utf-8", "backslashreplace") for text in data], pa.string())
    return values


def tar_rows(place: Place, path: str, done: Keys, *, max_bytes: int) -> Iterator[pa.Table]:
    """The images in a tar that are not done: `source`, and their `bytes`, or why there are none.

    In one pass, because reading at random from an object store would take a request for each. If
    the tar cannot be read on, a row of its own says so.
    """
    rows: list[_Member] = []
    for member in _members(place, path, done, max_bytes):
        rows.append(member)
        size = sum(len(row.data or b"") for row in rows)
        if len(rows) == ROWS_AT_A_TIME or size >= BYTES_AT_A_TIME:
            yield _tar_table(rows)
            rows = []
    yield _tar_table(rows)


class _Header(tarfile.TarInfo):
    """A broken one is an error; to tarfile itself, it is the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        broken = tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError  # type: ignore[attr-defined]
        try:
            return super().fromtarfile(archive)
        except broken as error:
            raise tarfile.ReadError(str(error)) from None


class _Member(NamedTuple):
    name: str
    data: bytes | None
    unread: str | None


def _members(place: Place, path: str, done: Keys, max_bytes: int) -> Iterator[_Member]:
    name = f"{place.prefix}{path}"
    try:
        with (
            place.system.open_input_stream(path, compression=None) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar,
        ):
            for member in tar:
                # What is not UTF-8 has no place in a column; its bytes are kept.
                inside = member.name.encode("utf-8", "surrogateescape")
                source = f"{name}/{inside.decode('utf-8', 'backslashreplace')}"
                if PurePosixPath(source.lower()).suffix not in IMAGE_ENDINGS:
                    continue
                if not member.isreg() or is_done(keys_of([None], [source]), done)[0]:
                    continue
                if member.size > max_bytes:
                    yield _Member(source, None, _too_large(member.size, max_bytes))
                    continue
                content = tar.extractfile(member)
                yield _Member(source, content.read() if content is not None else b"", None)
    except Exception as error:  # whatever broken archives and object stores make it raise
        yield _Member(name, None, unreadable(error))


def _too_large(size: int, most: int) -> str:
    return f"{ImageTooLarge.code}: The image has {size} bytes; at most {most} are allowed."


def _tar_table(rows: list[_Member]) -> pa.Table:
    names, data, unread = zip(*rows, strict=True) if rows else ((), (), ())
    return _table(
        pa.array(names, pa.string()),
        None,
        pa.array(data, pa.binary()),
        pa.array(unread, pa.string()),
    )


def _unread_table(source: str, origin: str | None, group: RowGroup) -> pa.Table:
    data = pa.nulls(1, pa.binary()) if group.has_bytes else None
    return _table(
        pa.array([source]), pa.array([origin], pa.string()), data, pa.array([group.unread])
    )


def _table(
    source: pa.Array, origin: pa.Array | None, data: pa.Array | None, unread: pa.Array | None
) -> pa.Table:
    """The same columns for all, because Ray Data puts tables together."""
    nulls = pa.nulls(len(source), pa.string())
    columns = {"source": source, "origin": nulls if origin is None else origin}
    if data is not None:
        columns["bytes"] = data
    return pa.table({**columns, UNREAD: nulls if unread is None else unread})


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
