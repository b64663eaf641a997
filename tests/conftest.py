"""Fixtures that several folders of tests share."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Jpeg = Callable[..., bytes]

# A developer's own settings and clusters must not affect the tests.
for name in [n for n in os.environ if n.startswith("RAYLENS_") or n == "RAY_ADDRESS"]:
    del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$XDG_CACHE_HOME for all tests and for the services that they start: each export is made once
    per run, and a developer's own cache is left alone."""
    folder = tmp_path_factory.mktemp("cache-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def jpeg() -> Jpeg:
    """Makes a distinct JPEG for each seed."""

    def make(seed: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """20 real photos that come with the test dependency foolbox."""
    import importlib.util

    spec = importlib.util.find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "data").glob("imagenet_*"))
