"""Whether small work may be done in the event loop, where everybody waits for it.

Above: `store.sqlite`, which asks before, and says how long it took. Below: the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SLOW_SECONDS = 0.003
"""A small write or read that keeps the event loop this long: ten times what it costs on a fast disk."""
MOST_SLOW = 4
"""Slow ones, less the fast ones between them, from which on it is the disk. One alone is bad luck (one in two hundred
on a quiet machine, one in ten when its cores are wanted), and the way to the thread would cost every one of the next
second more than that one took."""
STALL_SECONDS = 0.03
"""One that takes this long is enough by itself: others wait for the loop."""
RETREAT_SECONDS = 1.0
"""How long small writes or reads go to the thread then, before one is tried at once again: a slow disk costs the loop
one wait a second."""

MANY = 5
"""Writers. Up to four were faster when each did its own commits in the loop, by a fifth; eight and more when the thread
waited for the disk, by a tenth where a commit takes 0.4 ms and by a half where it takes one more."""
COMPANY_SECONDS = 0.02
"""How long somebody who wrote counts: a round of tools writes twice, and takes less."""


class AtOnce:
    """Whether small work of one kind may be done in the event loop. Each kind has its own: a cache may hide a slow disk
    from those who read."""

    def __init__(self) -> None:
        self._slow = 0
        """Slow ones, less the fast ones; 0 to MOST_SLOW."""
        self._not_before = 0.0

    @property
    def allowed(self) -> bool:
        return time.monotonic() >= self._not_before

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work."""
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            took = now - began
            if took <= SLOW_SECONDS:
                self._slow = max(0, self._slow - 1)
            else:
                self._slow = MOST_SLOW if took > STALL_SECONDS else min(MOST_SLOW, self._slow + 1)
                if self._slow == MOST_SLOW:
                    self._not_before = now + RETREAT_SECONDS


class Company:
    """Who writes at the moment."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def met(self, by: str | None) -> bool:
        """Whether this one, who writes now, is one of many. None is nobody in particular."""
        if by is None:
            return False
        now = time.monotonic()
        self._seen[by] = now
        if len(self._seen) >= MANY:
            self._seen = {who: when for who, when in self._seen.items() if now - when < COMPANY_SECONDS}
        return len(self._seen) >= MANY
