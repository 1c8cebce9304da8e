"""Prefixed identifiers, and the clock. A test that wants another time puts a `Clock` of its own in the place of CLOCK.

Prefixes are those of the wire (reference: Managed Agents API): agent_, env_, sesn_, sthr_, sevt_.

Two times are told apart everywhere: the wall clock says when something was, for people and across processes, and may be
set by anybody at any moment; how long something took, or has to wait, is measured by the steady one alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's of base32, which sort as their values do and leave out I, L, O and U."""
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_SHIFTS = range(110, -1, -10)

STEP_NS = 5 * 10**9
"""A wall clock that gets ahead of the steady one by more between two looks was set, or the machine was asleep; what
keeps clocks right by and by moves both."""


class Clock:
    """The time of day. It never runs backwards within a process: events are sorted by it.

    wall     nanoseconds since the epoch, as the machine has them
    steady   nanoseconds from anywhere; nobody can set them, and they stand still while the machine sleeps
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._latest, self._at = wall(), steady()
        self._ahead = 0
        self._reading = threading.Lock()

    def read(self) -> int:
        """Nanoseconds since the epoch. A clock that was set back is not followed: it goes on from where it stood, at
        the steady pace, until the machine's has caught up."""
        with self._reading:
            wall, steady = self._wall(), self._steady()
            passed = steady - self._at
            if wall < self._latest:
                wall = self._latest + passed
            elif wall - self._latest > passed + STEP_NS:
                self._ahead += wall - self._latest - passed
            self._latest, self._at = wall, steady
            return wall

    @property
    def ahead(self) -> float:
        """Seconds by which it went ahead in steps since this process began: time that was never spent."""
        return self._ahead / 1e9


CLOCK = Clock()


def new_id(prefix: str) -> str:
    """`prefix_` and 24 characters: 9 of the clock (so that ids sort roughly by age), 15 random (75 bits)."""
    number = (CLOCK.read() // 1_000_000) << 75 | int.from_bytes(os.urandom(10), "big") >> 5
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


def now() -> str:
    """The time as the wire writes it: RFC 3339, UTC, microseconds."""
    return _written(CLOCK.read())


def ago(seconds: float) -> str:
    """A time that was so many seconds ago for sure, written the same way: steps of the clock that this process has seen
    do not make anything older than it is."""
    read = CLOCK.read()
    return _written(read - round((seconds + CLOCK.ahead) * 1e9))


def _written(nanoseconds: int) -> str:
    seconds, microseconds = divmod(nanoseconds // 1_000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """A second is written once: many things happen in it."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
