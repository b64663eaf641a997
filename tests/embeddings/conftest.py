"""A service with a fake model, small images, and the command in this process."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from raylens.embeddings.rows import Row
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve

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
