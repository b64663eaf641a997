"""Pages of thumbnails in groups, and the map: what `raylens` writes for people to look at."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raylens.embeddings.pages import link, page
from raylens.embeddings.reading import Embeddings
from raylens.embeddings.thumbnails import thumbnails

MOST_BYTES = 20_000_000
_SIDE = 256
_FULL = 65_535  # coordinates in a page are whole numbers up to this
_SEED = 0

Advance = Callable[[int, int], None]


class Picture(NamedTuple):
    source: str
    label: str


class Group(NamedTuple):
    title: str
    pictures: list[Picture]


def gallery(
    title: str, note: str, groups: Sequence[Group], *, advance: Advance = lambda done, failed: None
) -> str:
    """A page with a thumbnail, name and label for each picture, of at most MOST_BYTES of
    thumbnails."""
    sources = [picture.source for group in groups for picture in group.pictures]
    folder = _folder(sources)
    made = iter(thumbnails(sources, _SIDE, most_bytes=MOST_BYTES, advance=advance))
    shown = [
        {
            "title": group.title,
            "items": [
                {
                    "name": picture.source.removeprefix(folder),
                    "source": picture.source,
                    "label": picture.label,
                    "link": link(picture.source),
                    "thumbnail": next(made),
                }
                for picture in group.pictures
            ],
        }
        for group in groups
    ]
    return page("gallery", title, {"note": note, "groups": shown})


class Map(NamedTuple):
    """A page, and how many points and thumbnails are on it."""

    html: str
    points: int
    thumbnails: int


def chosen(embeddings: Embeddings, most: int) -> list[int]:
    """At most so many of the rows that have a vector, by chance but always the same ones."""
    order = np.random.default_rng(_SEED).permutation(embeddings.good())
    return [int(row) for row in order[:most]]


def draw_map(
    embeddings: Embeddings,
    rows: Sequence[int],
    points: NDArray[np.float32],
    *,
    title: str,
    note: str,
    most_bytes: int,
    advance: Advance = lambda done, failed: None,
) -> Map:
    """The rows as points, which are (N, 2) from 0 to 1.

    Thumbnails get what the points leave of `most_bytes`, and the more points there are, the
    smaller they are; the last rows may get none.
    """
    columns, lines = (points.T * _FULL).round().astype(int).tolist()
    sources = [record.source for record in embeddings.records(rows)]
    folder = _folder(sources)
    data = {
        "note": note,
        "full": _FULL,
        "x": columns,
        "y": lines,
        "folder": folder,
        "names": [source.removeprefix(folder) for source in sources],
    }
    left = most_bytes - len(page("map", title, data))
    side = next(side for most, side in ((3000, 128), (6000, 96), (10**9, 64)) if len(rows) <= most)
    made = thumbnails(sources, side, most_bytes=max(0, left - 10 * len(rows)), advance=advance)
    html = page("map", title, {**data, "thumbnails": made})
    return Map(html, len(rows), sum(thumbnail is not None for thumbnail in made))


def _folder(sources: Sequence[str]) -> str:
    """What all begin with, up to a slash, and with it."""
    common = os.path.commonprefix(list(sources))  # noqa: RUF071  # whole names would lose "//"
    return common[: common.rfind("/") + 1]
