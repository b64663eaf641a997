"""What a GPU did when, as torch's profiler saw it: how much of the time it computed, and how much
of the copying was hidden behind that. Knows nothing of what ran."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Span = tuple[float, float]
"""Begin and end in microseconds."""


class Use(NamedTuple):
    computing: float
    """The share of the time in which at least one kernel ran. So counts nvidia-smi, too."""
    copies_hidden: float | None
    """The share of the time of copies to the GPU in which a kernel ran; None without copies."""


def use(kernels: Iterable[Span], copies: Iterable[Span]) -> Use | None:
    """None if nothing ran."""
    computing, copying = union(kernels), union(copies)
    both = union([*computing, *copying])
    if not computing:
        return None
    copied = length(copying)
    return Use(
        round(length(computing) / (both[-1][1] - both[0][0]), 4),
        round(1 - (length(both) - length(computing)) / copied, 4) if copied else None,
    )


def union(spans: Iterable[Span]) -> list[Span]:
    """The same moments, in order and without overlaps."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > begin:
            found.append((begin, end))
    return found


def length(spans: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in spans)


def watched(run: Callable[[], object]) -> Use | None:
    """Runs it under the profiler. None where there is none, or where it is not permitted."""
    from torch.profiler import ProfilerActivity, profile, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():  # type: ignore[no-untyped-call]
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
    kernels: list[Span] = []
    copies: list[Span] = []
    events: Any = profiled.events() or ()
    for event in events:
        if not str(event.device_type).endswith("CUDA"):
            continue
        span = (event.time_range.start, event.time_range.end)
        if "HtoD" in event.name:
            copies.append(span)
        elif not event.name.startswith(("Memcpy", "Memset")):
            kernels.append(span)
    return use(kernels, copies)
