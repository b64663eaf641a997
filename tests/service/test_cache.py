"""The cache keeps the latest used vectors within its bound, and lets one request make each."""

import numpy as np

from deployments.service.cache import OVERHEAD_BYTES, Entry, VectorCache

VECTOR = np.ones(4, np.float32)
SIZE = VECTOR.nbytes + OVERHEAD_BYTES


def test_the_least_recently_used_vector_is_evicted_first() -> None:
    cache = VectorCache(2 * SIZE)
    for key in (b"a", b"b"):
        cache.put(key, Entry(VECTOR))
    cache.get(b"a")
    cache.put(b"c", Entry(VECTOR))
    assert [cache.get(key) is None for key in (b"a", b"b", b"c")] == [False, True, False]


def test_a_vector_put_twice_counts_once() -> None:
    cache = VectorCache(2 * SIZE)
    for key in (b"a", b"b", b"b"):
        cache.put(key, Entry(VECTOR))
    assert cache.get(b"a") is not None


def test_a_cached_vector_does_not_keep_its_batch_in_memory() -> None:
    cache = VectorCache(SIZE)
    cache.put(b"a", Entry(np.ones((512, 4), np.float32)[7]))
    entry = cache.get(b"a")
    assert entry is not None
    assert entry.vector.base is None


def test_memory_stays_within_the_bound() -> None:
    cache = VectorCache(10 * SIZE)
    for number in range(1000):
        cache.put(str(number).encode(), Entry(VECTOR))
    assert sum(cache.get(str(n).encode()) is not None for n in range(1000)) == 10


def test_several_vectors_count_with_all_their_bytes() -> None:
    several = np.ones((300, 4), np.float32)
    cache = VectorCache(several.nbytes + OVERHEAD_BYTES + SIZE)
    for key, vector in ((b"a", VECTOR), (b"b", several), (b"c", VECTOR)):
        cache.put(key, Entry(vector))
    assert [cache.get(key) is None for key in (b"a", b"b", b"c")] == [True, False, False]


def test_what_is_larger_than_the_cache_evicts_nothing() -> None:
    cache = VectorCache(2 * SIZE)
    cache.put(b"a", Entry(VECTOR))
    cache.put(b"b", Entry(np.ones((1000, 4), np.float32)))
    assert [cache.get(key) is None for key in (b"a", b"b")] == [False, True]


async def test_one_request_makes_an_entry_and_the_others_wait() -> None:
    cache = VectorCache(SIZE)
    assert cache.flight(b"a") is None
    flight = cache.flight(b"a")
    assert flight is not None
    cache.put(b"a", Entry(VECTOR))
    assert flight.result().vector is not VECTOR
    assert cache.flight(b"b") is None
    given_up = cache.flight(b"b")
    assert given_up is not None
    cache.give_up(b"b")
    assert given_up.cancelled()
    assert cache.flight(b"b") is None


async def test_without_a_cache_nobody_waits() -> None:
    cache = VectorCache(0)
    assert cache.flight(b"a") is None
    assert cache.flight(b"a") is None
    cache.put(b"a", Entry(VECTOR))
    cache.give_up(b"a")
    assert cache.get(b"a") is None
