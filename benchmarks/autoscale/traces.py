"""Four kinds of traffic, the same each time: when each request arrives and how many images it has.

Load is given in replicas: 1 keeps one replica busy all the time, in full batches.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Images in a request, and how often; 7.5 on average.
SIZES, SHARES = (1, 4, 8, 16, 32), (0.3, 0.2, 0.3, 0.1, 0.1)
MEAN = float(np.dot(SIZES, SHARES))


@dataclass(frozen=True)
class Bulk:
    """A caller with `requests` of `items` each, of which `under_way` are in flight at a time."""

    begins_s: float
    requests: int
    items: int = 32
    under_way: int = 4


@dataclass(frozen=True)
class Trace:
    """Requests that arrive whether or not earlier ones were answered, and perhaps a bulk job."""

    name: str
    arrivals_s: Array
    """Rising, from 0."""
    items: Array
    seconds: float
    bulk: Bulk | None = None


def trace(name: str, load: Array, image_s: float, *, seed: int, mean: float = MEAN) -> Trace:
    """Random arrivals at a load that is given for each second; single images if their `mean` number
    in a request is 1."""
    random = np.random.default_rng(seed)
    counts = random.poisson(load / (image_s * mean))
    begins = np.repeat(np.arange(len(load)), counts)
    arrivals = np.sort(begins + random.random(len(begins)))
    items = np.ones(len(arrivals), int)
    if mean > 1:
        items = random.choice(SIZES, size=len(arrivals), p=SHARES)
    return Trace(name, arrivals, items, float(len(load)))


def steady(image_s: float, *, seconds: float = 3600, load: float = 2.0) -> Trace:
    return trace("steady", np.full(round(seconds), load), image_s, seed=1)


def day(image_s: float, *, seconds: float = 86_400, peak: float = 4.0) -> Trace:
    """Quiet at night and with two peaks, with swings of some minutes on top: the logarithm of the
    load wanders by 0.25 (a standard deviation) and forgets it within five minutes."""
    random = np.random.default_rng(2)
    at = np.arange(round(seconds)) / seconds
    hours = 24 * at
    bumps = 0.75 * np.exp(-(((hours - 11) / 2.5) ** 2)) + np.exp(-(((hours - 19.5) / 2.5) ** 2))
    swings = np.zeros(len(at))
    forget = 1 / 300 * 86_400 / seconds
    noise = random.normal(0, 0.25 * np.sqrt(2 * forget), len(at))
    for second in range(1, len(at)):
        swings[second] = (1 - forget) * swings[second - 1] + noise[second]
    return trace("a day", peak * (0.06 + 0.94 * bumps) * np.exp(swings), image_s, seed=3)


def flash_crowd(image_s: float, *, before: float = 0.6, times: float = 10) -> Trace:
    """Ten minutes of quiet, ten times as much within five seconds, for ten minutes; quiet again."""
    load = np.full(2400, before)
    load[600:1200] *= times
    load[600:605] = before * np.linspace(1, times, 5)
    return trace("a crowd x10", load, image_s, seed=4)


def bulk_job(image_s: float) -> Trace:
    """Interactive callers, and after ten minutes a bulk job of half an hour for one replica."""
    quiet = trace("bulk beside", np.full(3600, 0.5), image_s, seed=5)
    bulk = Bulk(600.0, requests=round(1800 / (32 * image_s)))
    return Trace(quiet.name, quiet.arrivals_s, quiet.items, quiet.seconds, bulk)
