"""A batch that does not fit into the GPU's memory is computed in parts that do."""

import numpy as np
import pytest

from deployments.models.engines.parts import SMALLER_FOR_S, InParts
from deployments.wire import NoMemoryError, Stack, Vectors


class Memory:
    """Has room for `room` items, and gives each item back as its vector."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []
        self.now = 100.0

    async def run(self, stack: Stack) -> Vectors:
        self.tried.append(len(stack))
        if len(stack) > self.room:
            raise NoMemoryError("no memory")
        return stack.astype(np.float32)

    def tower(self) -> InParts:
        return InParts(self.run, lambda: self.now)


def items(number: int) -> Stack:
    return np.arange(number, dtype=np.float32).reshape(number, 1)


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("room", [1, 2, 3, 8])
async def test_every_item_gets_its_own_vector(number: int, room: int) -> None:
    vectors = await Memory(room).tower().encode(items(number))
    assert (vectors == items(number)).all()


async def test_a_batch_is_halved_until_it_fits() -> None:
    memory = Memory(room=3)
    await memory.tower().encode(items(8))
    assert memory.tried == [8, 4, 2, 2, 2, 2]


async def test_one_item_that_does_not_fit_is_an_error() -> None:
    memory = Memory(room=0)
    with pytest.raises(NoMemoryError):
        await memory.tower().encode(items(4))
    assert memory.tried == [4, 2, 1]


async def test_batches_stay_small_for_a_while_and_then_large_ones_are_tried_again() -> None:
    memory = Memory(room=4)
    tower = memory.tower()
    await tower.encode(items(8))
    memory.room = 100
    memory.tried.clear()
    memory.now += SMALLER_FOR_S - 1
    await tower.encode(items(8))
    assert memory.tried == [4, 4]
    memory.now += 2
    await tower.encode(items(8))
    assert memory.tried == [4, 4, 8]


async def test_the_log_says_which_setting_to_lower(caplog: pytest.LogCaptureFixture) -> None:
    await Memory(room=4).tower().encode(items(8))
    assert "no memory for a batch of 8, so batches have at most 4 for 60 s" in caplog.text
    assert "model.max_batch_size" in caplog.text
