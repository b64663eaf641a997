"""Images that take long to decode have a lane of their own and hold up no others."""

import asyncio
import io
import threading
from typing import Any

from PIL import Image

from deployments.items import BytesItem
from deployments.pixels.workers import TakesLongError
from deployments.wire import Decoded
from tests.conftest import Jpeg
from tests.fakes import InProcess, service
from tests.service.conftest import Images
from tests.service.requests import embed, errors


class SlowImages(InProcess):
    """Decodes images, but those of SLOW_SIZE wait in the slow lane until they are released."""

    SLOW_SIZE = (88, 66)

    def __init__(self) -> None:
        super().__init__(10_000_000)
        self.begun = threading.Event()
        self.released = threading.Event()

    def decode(self, data: bytes, spec: Any, *, slow_lane: bool = False) -> Decoded:
        with Image.open(io.BytesIO(data)) as image:
            if image.size == self.SLOW_SIZE:
                if not slow_lane:
                    raise TakesLongError
                self.begun.set()
                self.released.wait(10)
        return super().decode(data, spec)


async def test_an_image_that_takes_long_is_decoded_in_the_slow_lane(images: Images) -> None:
    lanes = []

    class Workers(InProcess):
        def decode(self, data: bytes, spec: Any, *, slow_lane: bool = False) -> Decoded:
            lanes.append(slow_lane)
            if not slow_lane:
                raise TakesLongError
            return super().decode(data, spec)

    opened = service(workers=Workers(10_000_000))
    embedded = await embed(opened, images(1))
    assert not errors(embedded)[0]
    assert lanes == [False, True]


async def test_images_that_get_no_turn_in_the_slow_lane_say_so_and_the_others_are_answered(
    jpeg: Jpeg,
) -> None:
    slow = [BytesItem(jpeg(i, SlowImages.SLOW_SIZE)) for i in range(3)]
    quick = [BytesItem(jpeg(i)) for i in range(4)]
    workers = SlowImages()
    opened = service(workers=workers, limits={"request_timeout_s": 2.0})
    try:
        async with opened.time_limit() as deadline:
            embedded = await embed(opened, [*slow, *quick], deadline, on_error="report")
    finally:
        workers.released.set()
    found = [(e.code, e.retry_after_s) if e else None for e in errors(embedded)]
    assert found == [("overloaded", 10)] * 3 + [None] * 4


async def test_images_that_take_long_do_not_hold_up_others_of_the_same_tenant(jpeg: Jpeg) -> None:
    workers = SlowImages()
    opened = service(workers=workers)
    slow = [BytesItem(jpeg(i, SlowImages.SLOW_SIZE)) for i in range(3)]
    waiting = asyncio.create_task(embed(opened, slow, tenant="a"))
    try:
        await asyncio.to_thread(workers.begun.wait, 5)
        quick = await embed(opened, [BytesItem(jpeg(7))], tenant="a")
        assert errors(quick) == [None]
        assert not waiting.done()
    finally:
        workers.released.set()
    assert errors(await waiting) == [None] * 3
