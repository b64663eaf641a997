"""A service with a fake model, small images, and the command in this process."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from raylens.embed.formats import format_of
from raylens.embed.rows import Row
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve
from tests.commands import raylens

Photos = Callable[..., list[Path]]


@pytest.fixture
def url(serve: Serve) -> Iterator[str]:
    with serve() as url:
        yield url


def paint(path: Path, number: int) -> Path:
    """A PNG of a colour of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (number % 256, number // 256, 200)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Makes images in a folder `photos`."""

    def make(count: int, *, first: int = 0) -> list[Path]:
        numbers = range(first, first + count)
        return [paint(tmp_path / "photos" / f"{number:04}.png", number) for number in numbers]

    return make


def vectors(rows: Sequence[Row]) -> NDArray[np.float32]:
    """Of rows that all have one."""
    return np.stack([row.embedding for row in rows if row.embedding is not None])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


def embed(out: Path, url: str, *arguments: object) -> Any:
    return raylens("embed", *map(str, arguments), "-o", str(out), "--url", url)


def kept(out: Path) -> dict[str, Row]:
    """The rows by source, each of which must be there once, and no journal."""
    rows = list(format_of(out).read(out))
    by_source = {row.source: row for row in rows}
    assert len(by_source) == len(rows)
    assert not list(out.parent.glob(f"{out.name}.journal*"))
    assert not list(out.parent.glob("*.new.*"))
    return by_source


def good(out: Path) -> set[str]:
    return {source for source, row in kept(out).items() if row.embedding is not None}
