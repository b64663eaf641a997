"""A Ray for these tests, and what the model makes of a photo without one."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from pyarrow import parquet

from deployments.bulk.parts import Model
from deployments.models.engines.choice import load_engine
from deployments.pixels.decode import decode
from deployments.settings import ModelSettings

CONFIG = {"model": {"precision": "float32"}}
MODEL_COLUMNS = set(Model._fields)

Alone = Callable[[bytes], NDArray[np.float32]]


@pytest.fixture(scope="module")
def local_ray(bucket: str) -> Iterator[None]:
    """A Ray in which `bulk.run` and `bulk.embed` find themselves; it can reach the bucket."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def alone() -> Iterator[Alone]:
    """The bundled model's vector of one image, straight from decoder and engine."""
    with asyncio.Runner() as runner:
        settings = ModelSettings(precision="float32", threads=1)
        engine = runner.run(load_engine(settings, has_gpu=False))

        def embed(data: bytes) -> NDArray[np.float32]:
            pixels = decode(data, engine.loaded.pixels, max_pixels=10**8).pixels
            vector: NDArray[np.float32] = runner.run(engine.encode(pixels[np.newaxis]))[0]
            return vector / np.linalg.norm(vector)

        yield embed


def rows_in(destination: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(destination).to_pylist()
    return rows


def assert_same(row: dict[str, Any], expected: NDArray[np.float32]) -> None:
    assert row["error"] is None
    assert float(np.dot(row["embedding"], expected)) > 0.99999
