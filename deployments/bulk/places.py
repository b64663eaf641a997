"""Folders and object stores as pyarrow sees them, and how their files are named.

Knows neither images nor what is done with the files.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class PlaceError(Exception):
    """A place cannot be read or written; the message says why."""


class Place(NamedTuple):
    """A file or folder: on this machine, or in an object store."""

    system: Any
    """A `pyarrow.fs.FileSystem`, which can be pickled."""
    path: str
    """In that file system, without a slash at its end."""
    prefix: str
    """What makes a path in it a name for people: nothing, or such as `s3://`."""
    options: tuple[tuple[str, str], ...] = ()
    """Of its URI, for libraries with clients of their own. Credentials are named, never kept."""

    @classmethod
    def of(cls, name: str) -> "Place":
        """`name` is a path, or a URI that may have options (`?region=eu-west-1`). Raises
        PlaceError."""
        from pyarrow import fs

        if "://" not in name:
            return cls(fs.LocalFileSystem(), str(Path(name).expanduser().absolute()), "")
        try:
            system, path = fs.FileSystem.from_uri(name)
        except (OSError, ValueError) as error:
            raise PlaceError(f"{shown(name)}: cannot be opened ({_line(error)})") from None
        parts = urlsplit(name)
        prefix = "" if parts.scheme == "file" else f"{parts.scheme}://"
        credentials = [("credentials", "")] if "@" in parts.netloc else []
        options = (*parse_qsl(parts.query), *credentials)
        return cls(system, path.rstrip("/"), prefix, options)

    def __str__(self) -> str:
        return f"{self.prefix}{self.path}"

    def __truediv__(self, name: str) -> "Place":
        return self._replace(path=f"{self.path}/{name}")

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def exists(self) -> bool:
        from pyarrow import fs

        return bool(self._info().type != fs.FileType.NotFound)

    def files(self) -> Iterator[str]:
        """The paths of all regular files below a folder, in a stable order, or this file's own.

        Raises PlaceError, also if there is nothing.
        """
        from pyarrow import fs

        info = self._info()
        if info.is_file:
            yield self.path
        elif info.type == fs.FileType.NotFound:
            raise PlaceError(f"{self}: there is no such file or folder")
        elif self.prefix:
            try:
                found = self.system.get_file_info(fs.FileSelector(self.path, recursive=True))
            except (OSError, ValueError) as error:
                raise PlaceError(f"{self}: cannot be listed ({_line(error)})") from None
            yield from sorted(info.path for info in found if info.is_file)
        else:  # a folder at a time: pyarrow would hold millions of entries
            for folder, folders, names in os.walk(self.path, followlinks=True):
                folders.sort()
                yield from (f"{folder}/{name}" for name in sorted(names))

    def read(self, *, most: int) -> bytes:
        """A regular file's bytes, or `most` and one of them. Raises OSError."""
        self.size()  # opening a FIFO would wait for ever
        with self.system.open_input_stream(self.path) as file:
            return bytes(file.read(most + 1))

    def size(self) -> int:
        """A regular file's, in bytes. Raises OSError."""
        try:
            info = self._info()
        except PlaceError as error:
            raise OSError(str(error)) from None
        if not info.is_file:
            raise FileNotFoundError(str(self))
        return int(info.size)

    def folder(self) -> "Place":
        """This folder, or the one that this file is in."""
        return self._replace(path=self.path.rpartition("/")[0]) if self.is_file() else self

    def below(self, name: str) -> "Place":
        """The file that a stranger names: as a path from here, or in full if it is below here.

        Options in a URI would lead anywhere, with this machine's credentials; here, they are a
        part of a file's name. Raises FileNotFoundError for what is elsewhere.
        """
        inside = name.removeprefix(f"{str(self).rstrip('/')}/")
        is_elsewhere = inside == name and (name.startswith(("/", "~")) or "://" in name)
        if is_elsewhere or ".." in inside.split("/"):
            raise FileNotFoundError(name)
        return self / inside

    def write(self, data: bytes) -> None:
        """Replaces a small file."""
        self.make_folder()
        with self.system.open_output_stream(self.path) as file:
            file.write(data)

    def make_folder(self) -> None:
        """Makes the folder that this file is in; object stores need none."""
        if not self.prefix:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)

    def move_to(self, other: "Place") -> None:
        """Renames a file, which in an object store copies it there: the other name has all of it,
        or nothing."""
        self.system.move(self.path, other.path)

    def remove_folder(self) -> None:
        if self.exists():
            self.system.delete_dir(self.path)

    def _info(self) -> Any:
        try:
            return self.system.get_file_info(self.path)
        except (OSError, ValueError) as error:
            raise PlaceError(f"{self}: cannot be reached ({_line(error)})") from None


def shown(name: str) -> str:
    """A URI without the credentials and options that it may have."""
    if "://" not in name:
        return name
    parts = urlsplit(name)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
