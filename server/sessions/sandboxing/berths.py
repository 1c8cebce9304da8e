"""How many sandboxes may be live at once, and who gets the next one: first come, first served.

Above: `sandboxes`. Below: `place`. In words: a sandbox that its session does not need is stopped for one that is
needed, the longest idle first. Needed now are those of sessions that run a tool, and of callers who read files; they
wait in line. One that is only made ahead, while the model thinks, waits for nobody and takes nothing from a session in
the middle of a turn. A session in the middle of a turn has its sandbox for SLICE seconds at least; then, whenever it
runs nothing, it may have to yield it to the first in line, and gets behind all who wait when it needs one again. Files
survive that, and the agent is told. So nobody waits for ever, and nobody who holds a sandbox is waited for while it
waits for something else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from server.sessions.sandboxing.place import Place

SLICE = 10.0
"""Seconds. A stop and a start cost half of one and what runs in the background: more often would be no help to anybody.
Most turns that call a tool are over, or in a long command, by then."""
STUBBORN = 1.0
"""Seconds until another try, when the longest idle one could not be stopped."""


@dataclass(eq=False)
class _Waiter:
    place: Place
    told: asyncio.Event = field(default_factory=asyncio.Event)


def whom_to_stop(places: Collection[Place], now: float) -> tuple[Place | None, float | None]:
    """Whose sandbox is stopped for one that is needed now; else in how many seconds to ask again, None: when something
    has changed. Times are those of the monotonic clock."""
    unused = [place for place in places if place.unused]
    resting = [place for place in unused if not place.at_work]
    if resting:
        return min(resting, key=lambda place: place.idle_since), None
    if not unused:
        return None, None
    longest = min(unused, key=lambda place: place.since)
    left = longest.since + SLICE - now
    return (longest, None) if left <= 0 else (None, left)


class Berths:
    """Room for so many live sandboxes.

    stop   stops a place's sandbox, unless it is used by then; whether it is gone
    """

    def __init__(self, most: int, places: Mapping[str, Place], stop: Callable[[Place], Awaitable[bool]]) -> None:
        self.most = most
        self._places = places
        self._stop = stop
        self._line: list[_Waiter] = []

    def before(self, session_id: str) -> int | None:
        """How many wait in line before this session; None when it does not wait."""
        found = (number for number, waiter in enumerate(self._line) if waiter.place.session_id == session_id)
        return next(found, None)

    def at_once(self) -> bool:
        """Whether one could be made ahead: nobody waits, and there is room, or a session at rest has one."""
        if self._line:
            return False
        return self._free or any(place.unused and not place.at_work for place in self._places.values())

    def look(self) -> None:
        """Something has changed: a sandbox is gone, or not used any more, or somebody does not wait any more."""
        if self._line:
            self._line[0].told.set()

    async def take(self, place: Place) -> bool:
        """Reserve room, waiting in line as long as somebody wants to use the place. False when nobody does, and there
        is none at once."""
        waiter = _Waiter(place)
        self._line.append(waiter)
        try:
            while True:
                waiter.told.clear()
                again = await self._serve(waiter) if self._line[0] is waiter else None
                if place.reserved:
                    return True
                if not place.users:
                    return False
                with suppress(TimeoutError):
                    async with asyncio.timeout(again):  # see `Role._look`
                        await waiter.told.wait()
        finally:
            self._line.remove(waiter)
            self.look()

    def leave(self, place: Place) -> None:
        """Nobody uses this place any more: it need not wait."""
        for waiter in self._line:
            if waiter.place is place:
                waiter.told.set()

    @property
    def _free(self) -> bool:
        return sum(place.counts for place in self._places.values()) < self.most

    async def _serve(self, waiter: _Waiter) -> float | None:
        """Reserve room for the first in line, if there is some or can be made; else when to try again."""
        while not self._free:
            victim, again = whom_to_stop(self._places.values(), time.monotonic())
            if victim is None or (victim.at_work and not waiter.place.users):
                return again
            if not await self._stop(victim):
                return STUBBORN
        waiter.place.reserved = True
        return None
