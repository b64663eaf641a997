"""Two busy model replicas share the work evenly, however long stacks wait there."""

import asyncio
from itertools import islice
from typing import Any

from benchmarks.autoscale.service import serving
from raylens.bench import numbered
from tests.conftest import Jpeg
from tests.load import Outcome, at_once

# Two replicas answer 47 images/s: with 64 callers, each image waits about a second.
MODEL: Any = {"batch_s": 0.1, "image_s": 0.03, "max_batch_size": 8}
# Images in eight batches: about 1.4 seconds.
WINDOW = 64


def test_no_replica_waits_while_another_has_a_queue(jpeg: Jpeg) -> None:
    images = list(islice(numbered([jpeg(0, (64, 64))]), 800))
    with serving(**MODEL, embedder={"num_replicas": 2}) as server:
        outcomes = asyncio.run(at_once(server.url, images, callers=64))
    assert {outcome.status for outcome in outcomes} == {200}
    outcomes.sort(key=lambda outcome: outcome.began_s + outcome.took_s)
    answered = [replica(outcome) for outcome in outcomes[64:-64]]
    one, other = sorted(set(answered))
    # Serve's own router sends everything to one of them, and then everything to the other.
    for start in range(len(answered) - WINDOW):
        window = answered[start : start + WINDOW]
        assert min(window.count(one), window.count(other)) >= WINDOW / 8


def replica(outcome: Outcome) -> float:
    """Which one an answer of the sleeping model is from."""
    first, second = outcome.body["data"][0]["embedding"][:2]
    return float(round(first / second, 3))
