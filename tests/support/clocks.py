"""A machine whose clock a test sets."""

from __future__ import annotations

import time

from server.ids import Clock

HOUR = 3600
"""Seconds."""


class Machine:
    """Its wall clock, which is set, and its steady one, which is not; real time passes in both besides."""

    def __init__(self, *, stands: bool = True) -> None:
        """`stands`: no time passes but what the test says."""
        self._stands = stands
        self._set = self._passed = 0

    def set(self, seconds: float) -> None:
        """Set the wall clock ahead, or back."""
        self._set += round(seconds * 10**9)

    def passes(self, seconds: float) -> None:
        """So much time is spent."""
        self._passed += round(seconds * 10**9)

    def wall(self) -> int:
        return (10**18 if self._stands else time.time_ns()) + self._set + self._passed

    def steady(self) -> int:
        return (10**15 if self._stands else time.monotonic_ns()) + self._passed

    def clock(self) -> Clock:
        return Clock(self.wall, self.steady)
