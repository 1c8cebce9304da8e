"""Which sessions run here. It is the engine: it owns every loop, wakes them, and finds the interrupted ones at start.

Above: `app` (enters it once this process has been elected) and the doorbell. Below: `loop`, `sandboxes`. It does not
know what a loop does; it knows that there is one a session at most, and how many may work at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.errors import NotFound, StaleWriter, StoreError
from server.sessions.loop import Loop
from server.sessions.means import Means
from server.sessions.reading import view_now
from server.sessions.record import News
from server.sessions.spec import thaw
from server.store.store import Store

logger = logging.getLogger(__name__)

RESTART_DELAY = 1.0
"""Seconds before a loop that failed for a reason of ours is tried again; doubled each time, at most a minute."""

RESTING = 32
"""Loops of idle sessions that are kept, so that the next message need not read their whole log again."""
RESTING_SIZE = 64 << 20
"""Characters that their conversations may have together: most have a hundred thousand, one with pictures millions."""


class Supervisor:
    """The engine of a data folder. An async context manager: leaving it lets go of everything, losing nothing."""

    def __init__(self, store: Store, means: Means, deposed: Callable[[], None]) -> None:
        self._store = store
        self._means = means
        self._turns = means.turns
        self._deposed = deposed
        self._loops: dict[str, Loop] = {}
        self._resting: OrderedDict[str, tuple[Loop, int]] = OrderedDict()
        self._woken: set[str] = set()
        self._waiting: dict[str, News] = {}
        """Sessions in line for a turn, and whether something was appended to them."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Supervisor:
        """Become the engine: fence off older ones, then wake every session that has something to do."""
        self._means.log.epoch = await self._store.next_epoch()
        await self._means.sandboxes.reconcile()
        self._tending = asyncio.create_task(self._means.sandboxes.tend(), name="tend sandboxes")
        for session_id in await self._store.at_work():
            self.wake(session_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        at_work = set(self._tasks)
        tasks = [*self._tasks.values(), *([self._tending] if self._tending else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._means.sandboxes.close(at_work)

    def wake(self, session_id: str) -> None:
        """The session has something to do: start its loop, or let the running one look."""
        loop = self._loops.get(session_id)
        if loop is not None:
            loop.wake()
        elif session_id in self._waiting:
            self._waiting[session_id].set()
        elif session_id not in self._tasks:
            self._tasks[session_id] = asyncio.create_task(self._drive(session_id), name=f"session {session_id}")
        else:
            self._woken.add(session_id)

    @property
    def at_work(self) -> list[str]:
        """The sessions whose loops run or wait for their turn."""
        return list(self._tasks)

    def waiting(self, session_id: str) -> str:
        """What this session waits for because others have it, in words, and how many are before it; "" for nothing."""
        sandboxes = self._means.sandboxes.berths
        lines = (
            ("for its turn", self._turns.before(session_id), "max_sessions_at_work"),
            ("for a sandbox", sandboxes.before(session_id), "max_sandboxes"),
            ("to ask the model", self._means.models.before(session_id), "max_model_requests"),
        )
        for what, before, setting in lines:
            if before is not None:
                return f"waiting {what}, {before or 'none'} before it (setting {setting})"
        return ""

    async def idle(self) -> None:
        """Return when no session is at work."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def forget(self, session_id: str) -> None:
        """The session was deleted: stop its loop and remove its sandbox."""
        task = self._tasks.get(session_id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._resting.pop(session_id, None)
        await self._means.sandboxes.remove(session_id)

    async def _drive(self, session_id: str) -> None:
        """Run the session's loop until it rests; try again when it fails for a reason of ours."""
        delay = RESTART_DELAY
        try:
            while True:
                try:
                    if not await self._stint(session_id):
                        return
                except StaleWriter:
                    self._deposed()
                    return
                except NotFound:
                    return
                except Exception as error:
                    trace = None if isinstance(error, StoreError) else error  # its words say it all
                    logger.error("%s cannot go on: %s; tried again in %.0f s", session_id, error, delay, exc_info=trace)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 60.0)
        finally:
            self._tasks.pop(session_id, None)
            self._woken.discard(session_id)

    async def _stint(self, session_id: str) -> bool:
        """Wait for a place among the sessions at work, and have it until the session rests, or has done a turn while
        others wait. Whether there is more to do."""
        self._woken.discard(session_id)
        if not await self._served(session_id):
            return False
        try:
            async with self._loop(session_id) as loop:
                with self._means.sandboxes.turn(session_id):
                    more = await loop.run(lambda: self._turns.awaited)
        finally:
            self._turns.leave()
        return more or session_id in self._woken

    async def _served(self, session_id: str) -> bool:
        """Wait for a place. An interrupt is done meanwhile, for it needs none; False when the session rests then."""
        if self._turns.take_at_once():
            return True
        turn, news = self._turns.join(session_id), News()
        self._waiting[session_id] = news
        news.set()  # an interrupt may have come before us
        try:
            while not turn.done():
                await asyncio.wait({turn, news.told()}, return_when=asyncio.FIRST_COMPLETED)
                if not turn.done():
                    news.clear()
                    if await self._interrupted(session_id) and not turn.done():
                        self._turns.give_up(turn)
                        return False
        except BaseException:
            self._turns.give_up(turn)
            raise
        finally:
            del self._waiting[session_id]
        return True

    async def _interrupted(self, session_id: str) -> bool:
        """Do what interrupts of a waiting session ask, if there are any. Whether it rests then."""
        if not (await view_now(self._store, session_id)).state.interrupted:
            return False
        async with self._loop(session_id) as loop:
            return await loop.take_interrupts()

    @asynccontextmanager
    async def _loop(self, session_id: str) -> AsyncIterator[Loop]:
        """The session's loop, which hears when something is appended; kept for the next time, if it does not fail."""
        loop, _ = self._resting.pop(session_id, (None, 0))
        if loop is None:
            row = await self._store.session(session_id)
            loop = Loop(self._means, row, thaw(row.spec))
        self._loops[session_id] = loop
        try:
            yield loop
        finally:
            del self._loops[session_id]
        self._resting[session_id] = (loop, loop.size)
        while len(self._resting) > RESTING or sum(size for _, size in self._resting.values()) > RESTING_SIZE:
            self._resting.popitem(last=False)
