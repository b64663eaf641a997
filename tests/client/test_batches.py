"""How a client cuts its items."""

from raylens.client.batches import MOST_ITEMS, Batches, Window


def test_batches_end_at_a_number_of_items_or_of_bytes() -> None:
    batches = Batches(iter([1, 2, 3, 50, 3, 200, 1]), lambda item: item, most_bytes=100)
    assert batches.next(2) == [1, 2]
    assert batches.next(10) == [3, 50, 3]
    assert batches.next(10) == [200]
    assert batches.next(10) == [1]
    assert batches.next(10) == []
    assert batches.next(10) == []


def test_nothing_is_read_ahead_of_need() -> None:
    read = []

    def items() -> object:
        for number in range(100):
            read.append(number)
            yield number

    Batches(items(), lambda _: 1).next(5)  # type: ignore[arg-type]
    assert len(read) == 5


def test_the_window_grows_while_answers_are_quick_and_shrinks_when_they_are_slow() -> None:
    window = Window(max_concurrency=8)
    assert (window.batch_size, window.concurrency) == (4, 8)
    for _ in range(30):
        window.answered(0.1)
    assert (window.batch_size, window.concurrency) == (MOST_ITEMS, 8)
    window.answered(1.0)
    assert window.batch_size == MOST_ITEMS
    window.refused()
    assert window.batch_size == MOST_ITEMS // 2
    for _ in range(50):
        window.answered(10.0)
    assert (window.batch_size, window.concurrency) == (1, 1)
