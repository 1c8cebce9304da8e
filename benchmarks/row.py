"""A figure beside its other side: what was measured, what it has to hold, and whether it does. Pure.

Above: `rows/`, which make them, and `report`, which shows them. Below: nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """The summary of samples of one thing."""

    median: float
    p95: float
    samples: int


def figure(samples: Sequence[float]) -> Figure:
    """Median and 95th percentile (nearest rank, so that it was really seen). Raises ValueError without samples."""
    if not samples:
        raise ValueError("a figure needs at least one sample")
    ordered = sorted(samples)
    rank = max(0, math.ceil(0.95 * len(ordered)) - 1)
    return Figure(statistics.median(ordered), ordered[rank], len(ordered))


@dataclass(frozen=True)
class Hold:
    """A bound on our median: at most `times` the floor's plus `plus`, in the row's unit; at least that with `least`."""

    times: float = 0.0
    plus: float = 0.0
    least: bool = False

    def limit(self, floor: float | None) -> float | None:
        """The number that our median must keep to; None where it hangs on a floor that was not measured."""
        if self.times and floor is None:
            return None
        return self.times * (floor or 0.0) + self.plus

    def describe(self, unit: str) -> str:
        """As "≤ floor + 5 ms"."""
        parts = []
        if self.times:
            parts.append(_times(self.times))
        if self.plus:
            parts.append(f"{self.plus:g} {unit}")
        return ("≥ " if self.least else "≤ ") + (" + ".join(parts) or "0")


def _times(times: float) -> str:
    if times == 1:
        return "floor"
    return f"floor x {times:g}" if times > 0.2 else f"floor / {1 / times:g}"


@dataclass(frozen=True)
class Row:
    """One figure. `floor` is the same work done by the bare library or engine, in the same run."""

    name: str
    unit: str
    ours: Figure
    floor: Figure | None
    beside: str
    """What the floor is, in a few words."""
    hold: Hold | None = None
    """None: a figure to compare, not to hold here; `notes` says why."""
    notes: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> float | None:
        """Ours in floors; None where there is no floor, or noise has eaten it."""
        return self.ours.median / self.floor.median if self.floor and self.floor.median > 0 else None

    @property
    def limit(self) -> float | None:
        """What our median must keep to in this run."""
        return self.hold.limit(self.floor.median if self.floor else None) if self.hold else None

    @property
    def holds(self) -> bool | None:
        """Whether our median is within its bound; None where there is none to compare with."""
        if self.hold is None or self.limit is None:
            return None
        return self.ours.median >= self.limit if self.hold.least else self.ours.median <= self.limit
