"""Stacks go to the replica with the fewest of ours under way."""

from collections import Counter

from deployments.embedder.routing import UnderWay


def test_the_replica_with_the_fewest_calls_comes_first() -> None:
    under_way = UnderWay()
    for replica in ("a", "a", "b"):
        under_way.began(replica)
    assert under_way.ranked(["a", "b", "c"]) == ["c", "b", "a"]
    under_way.ended("a")
    under_way.ended("a")
    assert under_way.ranked(["a", "b"]) == ["a", "b"]


def test_equals_take_turns_by_chance() -> None:
    under_way = UnderWay()
    first = Counter(under_way.ranked(["a", "b"])[0] for _ in range(200))
    assert set(first) == {"a", "b"}


def test_a_replica_that_has_gone_leaves_nothing() -> None:
    under_way = UnderWay()
    under_way.began("gone")
    under_way.ended("gone")
    under_way.ended("never seen")
    assert under_way.ranked(["new", "gone"])[0] in ("new", "gone")
    under_way.began("new")
    assert under_way.ranked(["new", "gone"]) == ["gone", "new"]
