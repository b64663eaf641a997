"""How many replicas a deployment should have, from what has been observed of it. Plain arithmetic.

Knows neither Ray nor models: `serve` fills in what the replicas have reported, and the simulator in
`benchmarks/autoscale` what they would have. Work is in seconds of one replica's time, and demand is
work per second: a demand of 2 keeps two replicas busy.
"""

import math
from collections import deque
from dataclasses import dataclass, field

# Time constants of two moving averages of the demand. The fast one soon shows a change; the slow
# one decides the number of replicas while nothing changes.
FAST_S = 1.5
SLOW_S = 20.0
# Demand counts as growing once the fast average is above the slow one by this fraction of it, and
# by this many times their usual distance, which is itself an average over NOISE_S.
GROWTH = 0.2
NOISE = 5.0
NOISE_S = 120.0
# However fast the demand grows, a plan is for at most this many times the present one.
MOST_GROWTH = 2.0
# Refused requests are sent again, so they count for at most this many times the accepted ones.
MOST_REFUSED = 3.0
# A replica that is busy all the time has between one and two batches waiting or running.
BATCHES = 2.0
# Nothing that waits can be gone sooner than in the next round of Serve's control loop.
ROUND_S = 0.1
# Replicas are given back only if the others would stay this fraction below `utilisation`.
HYSTERESIS = 0.13


@dataclass(frozen=True, slots=True)
class Observation:
    """A deployment at one moment."""

    now: float
    """In seconds, on any clock."""
    running: int
    """Replicas that serve."""
    target: int
    """Replicas that were asked for last."""
    demand: float
    """Work that is accepted, in seconds per second."""
    refused: float = 0.0
    """Work that is refused, in seconds per second."""
    backlog_s: float = 0.0
    """Work that waits or is under way, at all replicas together."""
    batch_s: float = 0.0
    """What a full batch takes."""
    queued: float = 0.0
    """Calls that waited for a replica lately, on average. While there is no replica, a single one
    makes Serve start one."""


@dataclass(slots=True)
class Memory:
    """What a policy remembers of one deployment from call to call. Times are on `now`'s clock."""

    since: float | None = None
    """When it was first called."""
    at: float = 0.0
    """When it was last called."""
    fast: float = 0.0
    """The average of the demand over about FAST_S."""
    slow: float = 0.0
    """And over about SLOW_S."""
    noise: float = 0.0
    """How far apart these two usually are."""
    running: int = 0
    """Replicas that served at the last call."""
    starting: deque[float] = field(default_factory=deque)
    """When each replica that does not serve yet was asked for."""
    start_s: float | None = None
    """How long the last replicas took, from the decision until they served."""
    busy_at: float = 0.0
    """When there was last any work."""
    wanted: deque[tuple[float, int]] = field(default_factory=deque)
    """When how many replicas were wanted lately, in falling numbers: the largest first."""


@dataclass(frozen=True)
class ScalingPolicy:
    """As many replicas as keep waits short, now and when another one would have started."""

    utilisation: float = 0.75
    """The fraction of its time that a replica may be busy. Lower it for shorter waits."""
    wait_s: float | None = None
    """How long an item may wait at a replica; by default, as long as two full batches take."""
    start_s: float = 10.0
    """How long a replica takes to start, until that has been measured."""
    down_after_s: float = 120.0
    """Replicas are given back once fewer have been enough for this long."""
    idle_after_s: float = 300.0
    """The last one is given back after this long without work, if `min_replicas` is 0."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(
                f"utilisation is a fraction of the time, from 0 to 1: {self.utilisation}"
            )
        times = {"start_s": self.start_s, "down_after_s": self.down_after_s}
        times |= {"wait_s": self.wait_s or 0.0, "idle_after_s": self.idle_after_s}
        for name, seconds in times.items():
            if not (0 <= seconds < math.inf):
                raise ValueError(f"{name} is in seconds, 0 or more, not {seconds}")

    def replicas(self, seen: Observation, memory: Memory) -> int:
        """How many there should be from now on, before the deployment's own limits. Call it at
        least once a second."""
        self._remember(seen, memory)
        if seen.running == 0:  # they are starting, or none is wanted before somebody calls
            return seen.target
        up = self._needed(seen, memory, self.utilisation)
        if up >= seen.target:
            needed = up
        else:
            down = self._needed(seen, memory, (1 - HYSTERESIS) * self.utilisation)
            needed = min(down, seen.target)
        idle = seen.now - memory.busy_at >= self.idle_after_s and not seen.queued
        return self._held(0 if idle else max(1, needed), seen.now, memory, idle=idle)

    def startup_s(self, memory: Memory) -> float:
        """How long a replica takes to start, in seconds."""
        return self.start_s if memory.start_s is None else memory.start_s

    def _remember(self, seen: Observation, memory: Memory) -> None:
        demand = seen.demand + min(seen.refused, MOST_REFUSED * seen.demand)
        if memory.since is None:
            memory.since = memory.at = memory.busy_at = seen.now
            memory.fast = memory.slow = demand
            memory.wanted.append((seen.now, seen.target))  # whoever decided that knew more
        passed_s = max(0.0, seen.now - memory.at)
        known_s = max(passed_s, seen.now - memory.since, 1e-3)

        def average(before: float, now: float, time_constant_s: float) -> float:
            part = max(1 - math.exp(-passed_s / time_constant_s), passed_s / known_s)
            return before + part * (now - before)

        memory.fast = average(memory.fast, demand, FAST_S)
        memory.slow = average(memory.slow, demand, SLOW_S)
        # A jump must not count as noise, or the next jump would be taken for noise.
        apart = min(abs(memory.fast - memory.slow), 3 * memory.noise + GROWTH * memory.slow)
        memory.noise = average(memory.noise, apart, NOISE_S)
        memory.at = seen.now
        # Serve itself starts the first replica, and asks nobody meanwhile.
        if demand or seen.backlog_s or not (seen.running and memory.running):
            memory.busy_at = seen.now
        starting = memory.starting
        for _ in range(min(seen.running - memory.running, len(starting))):
            took_s = seen.now - starting.popleft()
            memory.start_s = (took_s + (memory.start_s or took_s)) / 2
        missing = max(0, seen.target - seen.running)
        while len(starting) > missing:
            starting.pop()
        starting.extend([seen.now] * (missing - len(starting)))
        memory.running = seen.running

    def _needed(self, seen: Observation, memory: Memory, utilisation: float) -> int:
        start_s = self.startup_s(memory)
        growth = memory.fast - memory.slow
        demand = memory.slow
        if growth > max(GROWTH * memory.slow, NOISE * memory.noise):
            # An average lags behind a steady growth by its time constant. By the time a replica
            # has started, the demand will have grown further.
            per_s = growth / (SLOW_S - FAST_S)
            ahead = memory.fast + per_s * (FAST_S + start_s)
            demand = min(ahead, MOST_GROWTH * memory.fast)
        needed = demand / utilisation
        coming = max(seen.running, seen.target)
        wait_s = BATCHES * seen.batch_s if self.wait_s is None else self.wait_s
        # What will be waiting by the time a replica that is asked for now has started. A jump is no
        # noise if items wait too long already; but taken for the demand as well, it would bring
        # replicas for each burst, 18 % more on the simulated day.
        arriving = max(demand, memory.fast) if seen.backlog_s > wait_s * coming else demand
        backlog_s = max(0.0, seen.backlog_s + (arriving - coming) * start_s)
        if backlog_s > wait_s * coming:
            needed = max(needed, demand + backlog_s / max(start_s, wait_s, ROUND_S))
        return math.ceil(needed - 1e-6)

    def _held(self, needed: int, now: float, memory: Memory, *, idle: bool) -> int:
        """The most that was needed during the last `down_after_s`."""
        wanted = memory.wanted
        while wanted and (idle or wanted[0][0] < now - self.down_after_s):
            wanted.popleft()
        while wanted and wanted[-1][1] <= needed:
            wanted.pop()
        wanted.append((now, needed))
        return wanted[0][1]
