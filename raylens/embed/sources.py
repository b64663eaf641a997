"""Finds images: what the SOURCEs of a command stand for."""

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

# Of the formats that the service reads (TIFF with a setting). Files that are named themselves are
# taken whatever their ending.
ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
)
# A folder is sorted in runs of so many names, so that one of a million takes no memory.
_SORTED_TOGETHER = 10_000


class SourceError(Exception):
    """A SOURCE that stands for nothing; its text is for the user."""


def is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


class Sources:
    """Iterates over absolute paths of files, and URLs, with flat memory.

    A SOURCE is a file, a folder, a glob, a URL, `@list.txt` or, for stdin, `-`; the last two have
    a SOURCE of the other kinds in each line. What a line names may be missing: it is yielded as if
    it were there, so that its row can say so.

    Attributes:
        folders: those that were named and searched so far.
        unreadable: those in which that was not possible, with the reason.
    """

    def __init__(self, sources: Sequence[str], stdin: BinaryIO) -> None:
        """Raises SourceError for the first that stands for nothing."""
        self._sources = sources
        self._stdin = stdin
        self.folders: set[str] = set()
        self.unreadable: dict[str, str] = {}
        for source in sources:
            _check(source)

    def __iter__(self) -> Iterator[str]:
        for source in self._sources:
            if source == "-":
                yield from self._lines(self._stdin)
            elif _is_list(source):
                try:
                    with Path(source[1:]).open("rb") as file:
                        yield from self._lines(file)
                except OSError as error:
                    raise SourceError(
                        f"the list {source[1:]} cannot be read: {error.strerror or error}"
                    ) from None
            else:
                yield from self._named(source)

    def _lines(self, lines: Iterable[bytes]) -> Iterator[str]:
        for line in lines:
            source = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"))
            if source:
                yield from self._named(source)

    def _named(self, source: str) -> Iterator[str]:
        if is_url(source):
            yield source
        elif os.path.isdir(source):  # noqa: PTH112  (Path would change how it is written)
            yield from self._tree(os.path.abspath(source))  # noqa: PTH100
        elif os.path.lexists(source) or not glob.has_magic(source):
            yield os.path.abspath(source)  # noqa: PTH100
        else:
            yield from self._matching(source)

    def _matching(self, pattern: str) -> Iterator[str]:
        start, deep, rest = _halves(pattern)
        for match in glob.iglob(start):  # noqa: PTH207
            path = os.path.abspath(match)  # noqa: PTH100
            if Path(path).is_dir():
                for image in self._tree(path):
                    if not deep or _matches(os.path.relpath(image, path).split("/"), rest):
                        yield image
            elif not deep and _is_image(path) and Path(path).is_file():
                yield path

    def _tree(self, folder: str) -> Iterator[str]:
        self.folders.add(folder)
        yield from self._folder(folder, ())

    def _folder(self, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """The images in a folder and those below it, links followed, hidden ones left out.

        `above` are the folders that it lies in: a link to one of those would never end.
        """
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in above:
                return
            with os.scandir(folder) as entries:
                above = (*above, (status.st_dev, status.st_ino))
                while some := sorted(
                    itertools.islice(entries, _SORTED_TOGETHER), key=lambda entry: entry.name
                ):
                    for entry in some:
                        if entry.name.startswith("."):
                            continue
                        if _is_image(entry.name) and _is(entry.is_file):
                            yield entry.path
                        elif _is(entry.is_dir):
                            yield from self._folder(entry.path, above)
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)


def _is(kind: Callable[[], bool]) -> bool:
    """What an entry is; nothing, where a link leads to itself or into a closed folder."""
    try:
        return kind()
    except OSError:
        return False


def _is_list(source: str) -> bool:
    return source.startswith("@")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122


def _halves(pattern: str) -> tuple[str, bool, list[str]]:
    """A glob up to the first `**`, whether there is one, and what comes from there on.

    Python's own `**` follows links in circles.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        return pattern, False, []
    first = parts.index("**")
    return "/".join(parts[:first]) or ("/" if first else "."), True, parts[first:]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the names of a path match a glob's parts."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _check(source: str) -> None:
    """What is missing on the command line is a slip; better told before a long job than after."""
    if source == "-" or is_url(source):
        return
    if _is_list(source):
        if not Path(source[1:]).is_file():
            raise SourceError(f"there is no list {source[1:]}")
    elif not os.path.lexists(source):
        if not glob.has_magic(source):
            raise SourceError(f"there is no file or folder {source}")
        if next(glob.iglob(_halves(source)[0]), None) is None:  # noqa: PTH207
            raise SourceError(f"nothing matches {source}")
