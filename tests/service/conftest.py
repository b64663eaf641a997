"""Images that are quick to decode."""

from collections.abc import Callable

import pytest

from deployments.items import BytesItem, Parsed
from tests.conftest import Jpeg

Images = Callable[..., list[Parsed]]


@pytest.fixture
def images(jpeg: Jpeg) -> Images:
    """Makes distinct images; small ones, for speed."""

    def make(number: int, first: int = 0) -> list[Parsed]:
        return [BytesItem(jpeg(seed, (16, 16))) for seed in range(first, first + number)]

    return make
