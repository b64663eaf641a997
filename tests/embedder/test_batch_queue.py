"""Which stacks make the next batch, without an event loop."""

import numpy as np

from deployments.embedder.batch_queue import BatchQueue, Waiting
from deployments.wire import Stack


def images(*values: int) -> Stack:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def put(queue: BatchQueue, *values: int, tenant: str | None = None, due: float = 0.0) -> Waiting:
    waiting = Waiting(images(*values), tenant, due)
    queue.put(waiting)
    return waiting


def batch(queue: BatchQueue, size: int) -> list[int]:
    return [int(value) for piece in queue.next(size) for value in piece.stack.ravel()]


def test_nothing_waits_in_a_new_queue() -> None:
    queue = BatchQueue()
    assert len(queue) == 0
    assert queue.next(4) == []


def test_a_stack_is_cut_where_the_batch_ends() -> None:
    queue = BatchQueue()
    put(queue, 0, 1, 2, 3, 4, 5)
    put(queue, 10, 11)
    assert batch(queue, 4) == [0, 1, 2, 3]
    assert len(queue) == 4
    (first, second) = queue.next(4)
    assert (first.start, first.stack.ravel().tolist()) == (4, [4, 5])
    assert (second.start, second.stack.ravel().tolist()) == (0, [10, 11])
    assert len(queue) == 0


def test_the_stack_due_first_goes_first_and_ties_go_in_order_of_arrival() -> None:
    queue = BatchQueue()
    put(queue, 3, due=2.0)
    put(queue, 1, due=1.0)
    put(queue, 2, due=1.0)
    assert batch(queue, 2) == [1, 2]
    assert batch(queue, 2) == [3]


def test_a_stack_whose_caller_left_takes_no_place() -> None:
    queue = BatchQueue()
    gone = put(queue, 1, 2)
    put(queue, 3)
    gone.is_over = True
    assert batch(queue, 2) == [3]
    assert len(queue) == 0


def test_tenants_share_a_batch_and_fill_it() -> None:
    queue = BatchQueue()
    put(queue, *[1] * 8, tenant="a")
    put(queue, 7, tenant="b")
    put(queue, 8, tenant=None)
    assert sorted(batch(queue, 6)) == [1, 1, 1, 1, 7, 8]
    assert batch(queue, 6) == [1, 1, 1, 1]


def test_tenants_take_turns_where_a_batch_is_too_small_for_all() -> None:
    queue = BatchQueue()
    for tenant in "abc":
        put(queue, *[ord(tenant)] * 2, tenant=tenant)
    order = [batch(queue, 1)[0] for _ in range(6)]
    assert [chr(value) for value in order] == ["a", "b", "c", "a", "b", "c"]
