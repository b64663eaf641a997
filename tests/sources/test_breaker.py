"""An origin that keeps failing is left alone for a while, and no other origin is."""

from deployments.sources.breaker import FAILURES, MOST_ORIGINS, PAUSE_S, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        assert not breaker.is_dead("http://a")
        breaker.failed("http://a")
    return breaker


def test_an_origin_is_dead_after_failures_in_a_row() -> None:
    assert broken(Clock()).is_dead("http://a")


def test_another_host_or_scheme_is_not_dead() -> None:
    breaker = broken(Clock())
    assert not breaker.is_dead("http://b")
    assert not breaker.is_dead("https://a")


def test_an_answer_in_between_restarts_the_count() -> None:
    breaker = Breaker(Clock())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed("http://a")
        breaker.answered("http://a")
    assert not breaker.is_dead("http://a")


def test_after_the_pause_one_request_finds_out_whether_it_is_back() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += PAUSE_S
    assert not breaker.is_dead("http://a")
    assert breaker.is_dead("http://a")
    breaker.failed("http://a")
    assert breaker.is_dead("http://a")
    clock.now += PAUSE_S
    assert not breaker.is_dead("http://a")
    breaker.answered("http://a")
    assert not breaker.is_dead("http://a")
    assert not breaker.is_dead("http://a")


def test_callers_cannot_fill_the_memory_with_names() -> None:
    breaker = Breaker(Clock())
    for number in range(3 * MOST_ORIGINS):
        breaker.failed(f"http://h{number}")
    assert len(breaker._origins) == MOST_ORIGINS
