"""Whether anything grew that must not. Pure.

The last fifth of a soak is compared with its second one: the first is for what fills up once. A bound is a ratio with
room for noise, and why it is that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles

from benchmarks.soak.gauges import Reading


@dataclass(frozen=True)
class Bound:
    """At most so many times what it was, plus so much."""

    times: float
    plus: float
    why: str


GROWTH: Mapping[str, Bound] = {
    "rss_mb": Bound(1.25, 40, "as PSS, and pages that the allocator has not given back"),
    "pss_mb": Bound(1.25, 25, "a leak of one kilobyte a turn would be more in half an hour; less is arenas and caches"),
    "fds": Bound(1.25, 15, "connections follow the load, which is the same at both ends"),
    "threads": Bound(1.0, 8, "pools make threads up to their bound, and keep them"),
    "tasks": Bound(1.5, 30, "they follow the load, and one look is one moment"),
    "processes": Bound(1.5, 10, "the embedded sandboxes, of which there are as many at both ends"),
    "containers": Bound(1.5, 4, "likewise; and some that are being removed"),
    "database_mb": Bound(1.5, 24, "sessions that are deleted make room for others; the write-ahead log comes and goes"),
    "p50_ms": Bound(2.0, 10, "a machine that does something else doubles it; a log that is read whole would do more"),
}


KEPT: Mapping[str, int] = {"fds": 20}
"""What an idle server may have more of after a load than after one session. Connections: the pool to the container
engine keeps ten, the one to the model what the last moment needed."""


@dataclass(frozen=True)
class Compared:
    """A figure at both ends of a soak."""

    name: str
    start: float
    end: float
    limit: float
    why: str

    @property
    def holds(self) -> bool:
        return self.end <= self.limit


def compare(readings: Sequence[Reading], latencies: Sequence[tuple[float, float]], seconds: float) -> list[Compared]:
    """What was measured in the second fifth and in the last; nothing where there is too little to compare."""
    found = []
    for name, bound in GROWTH.items():
        samples = latencies if name == "p50_ms" else [(each.seconds, getattr(each, name)) for each in readings]
        start = [value for at, value in samples if 0.2 * seconds <= at < 0.4 * seconds]
        end = [value for at, value in samples if at >= 0.8 * seconds]
        if start and end:
            first, last = (percentile(part, 50) if name == "p50_ms" else mean(part) for part in (start, end))
            found.append(Compared(name, first, last, first * bound.times + bound.plus, bound.why))
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """Of at least one value."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def left_behind(before: Reading, after: Reading) -> list[str]:
    """What an idle server has more of than it had, in words."""
    looked_at = ("fds", "tasks", "processes", "containers", "sandboxes")
    both = [(name, getattr(before, name), getattr(after, name)) for name in looked_at]
    more = [each for each in both if each[2] > each[1] + KEPT.get(each[0], 0)]
    return [f"{name}: {was} before, {now} after everything was deleted" for name, was, now in more]
