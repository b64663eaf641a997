"""Pages of thumbnails in groups, and the map: what `raylens` writes for people to look at."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from raylens.embeddings.pages import link, page
from raylens.embeddings.projection import Method, project
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
    made = iter(thumbnails(sources, _SIDE, most_bytes=MOST_BYTES, advance=advance))
    shown = [
        {
            "title": group.title,
            "items": [
                {
                    "name": picture.source,
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
    *,
    title: str,
    note: str,
    method: Method,
    most_bytes: int,
    advance: Advance = lambda done, failed: None,
) -> Map:
    """The rows in a plane. Thumbnails get what the points leave of `most_bytes`, and the more
    points there are, the smaller they are; the last rows may get none."""
    points = project(embeddings.vectors[np.asarray(rows)], method)
    columns, lines = (points.T * _FULL).round().astype(int).tolist()
    sources = [record.source for record in embeddings.records(rows)]
    folder, _, _ = os.path.commonprefix(sources).rpartition("/")  # noqa: RUF071  # of URLs too
    folder = folder + "/" if folder else ""
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
