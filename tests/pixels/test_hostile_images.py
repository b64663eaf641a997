"""Every malformed image of `make hostile`, decoded without a service around it."""

import pytest

from deployments.errors import RaylensError
from deployments.pixels.workers import DecodeWorkers
from deployments.settings import Decode
from deployments.wire import PixelSpec
from tests.hostile.attack import LEAKS
from tests.hostile.images import all_images

SPEC = PixelSpec(resize=("shortest_edge", 32), resample=3, crop=(32, 32))
KINDS = {kind: images for kind, _, images in all_images()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_decoded_or_refused_in_our_words(kind: str) -> None:
    workers = DecodeWorkers(Decode(max_cpu_s=2.0), max_pixels=50_000_000)
    tried = 0
    try:
        for name, data in KINDS[kind]:
            refusal: RaylensError | None = None
            try:
                assert workers.decode(data, SPEC, slow_lane=True).pixels.shape == (32, 32, 3), name
            except RaylensError as error:
                refusal = error
            if refusal is not None:
                assert refusal.status in (413, 415, 422), name
                assert not LEAKS.search(refusal.message.encode()), name
            tried += 1
    finally:
        workers.close()
    assert tried >= 40


@pytest.mark.slow
def test_there_are_at_least_1500_images() -> None:
    assert sum(1 for _, _, images in all_images() for _ in images) >= 1500
