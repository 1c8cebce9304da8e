"""Places of which there are few, and the line of those who wait for one: first come, first served.

Above: `supervisor` (sessions at work) and `asking` (model requests). Whoever has given a place back and wants one again
stands behind all who wait. A place that is free is taken without a task, a thread or a turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Line:
    """So many places, and those who wait for them, by session. No place is free while somebody waits."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: dict[asyncio.Future[None], str] = {}

    @property
    def full(self) -> bool:
        """Whether somebody who comes now has to wait."""
        return self._free < 1

    @property
    def awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def before(self, session_id: str) -> int | None:
        """How many are served before this session; None when it does not wait."""
        return next((number for number, waits in enumerate(self._waiting.values()) if waits == session_id), None)

    def take_at_once(self) -> bool:
        """Take a place, if one is free."""
        if self._free < 1:
            return False
        self._free -= 1
        return True

    def join(self, session_id: str) -> asyncio.Future[None]:
        """Wait at the end of the line; the place is one's own when this is done. Without patience: `give_up`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = session_id
        return turn

    def give_up(self, turn: asyncio.Future[None]) -> None:
        """Wait no longer; a place that came just now goes to the next."""
        if turn in self._waiting:
            del self._waiting[turn]
        else:
            self.leave()

    def leave(self) -> None:
        """Give a place back: the first in line has it, unless there was one too many."""
        for turn in self._waiting if self._free >= 0 else ():
            del self._waiting[turn]
            turn.set_result(None)
            return
        self._free += 1

    @asynccontextmanager
    async def place(self, session_id: str) -> AsyncIterator[bool]:
        """A place for as long as the block lasts; gives whether it was waited for."""
        waits = not self.take_at_once()
        if waits:
            turn = self.join(session_id)
            try:
                await asyncio.shield(turn)
            except asyncio.CancelledError:
                self.give_up(turn)
                raise
        try:
            yield waits
        finally:
            self.leave()

    @asynccontextmanager
    async def aside(self, session_id: str) -> AsyncIterator[None]:
        """Lend one's place to others for the length of the block, then wait for one again. Whoever is called off
        meanwhile has a place at once, though it be one too many: there is something to be done without delay."""
        self.leave()
        turn: asyncio.Future[None] | None = None
        try:
            yield
            if self.take_at_once():
                return
            turn = self.join(session_id)
            await asyncio.shield(turn)
        except BaseException:
            if turn in self._waiting:
                del self._waiting[turn]
            if turn is None or not turn.done():  # else the place came just now
                self._free -= 1
            raise
