"""What the engine does beside the sessions, so that what is kept stays small: in steps that hold up nobody.

Sessions that nobody has touched for long go, where the operator wants that; the logs of deleted sessions, keys that are
good no more and the bytes of files that are nobody's follow; then the database gives back the room that it does not
need.

Above: `app`, which runs it while this process is the engine. Below: the store, the files, and the engine's own way of
forgetting a session. It decides nothing about sessions that work or wait for an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from server.files.blobs import Blobs
from server.files.collecting import collect
from server.ids import ago
from server.sessions.fold import fold
from server.sessions.log import Log
from server.sessions.view import cached
from server.store.files import FileTable
from server.store.store import HeadMoved, SessionRow, Store

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
"""Between rounds: what is kept grows by the minute, not by the second."""
PAUSE_SECONDS = 0.05
"""Between the steps of a round, each of which takes ten milliseconds or so: others have most of the time."""
EVENTS = 50
"""Of a deleted session's log, at a time."""
KEYS = 500
SESSIONS = 20
"""Looked at, deleted and named in the log at a time."""


class Upkeep:
    """The rounds of one engine."""

    def __init__(
        self,
        store: Store,
        log: Log,
        files: tuple[FileTable, Blobs],
        forget: Callable[[str], Awaitable[None]],
        retention_days: int,
    ) -> None:
        """`forget` ends what the engine has of a session that was deleted; 0 days keeps everything."""
        self._store = store
        self._log = log
        self._files = files
        self._forget = forget
        self._days = retention_days

    async def run(self) -> None:
        """Make rounds, for ever. Run it in a task of its own."""
        while True:
            try:
                await self._round()
            except Exception:  # whatever it was, sessions go on, and the next round may do better
                logger.exception("upkeep of the data folder failed; tried again in a minute")
            await asyncio.sleep(EVERY_SECONDS)

    async def _round(self) -> None:
        if self._days:
            await self._retire()
        await _to_its_end(lambda: self._store.clear_logs(EVENTS))
        await _to_its_end(lambda: self._store.clear_keys(KEYS))
        await collect(*self._files)
        await _to_its_end(self._store.tidy)

    async def _retire(self) -> None:
        """Delete the sessions that nothing has happened in for so many days."""
        since, place = ago(self._days * 86_400), ("", "")
        while rows := await self._store.untouched(since, place, SESSIONS):
            place = (rows[-1].created_at, rows[-1].id)
            await self._retire_some(rows)

    async def _retire_some(self, rows: Sequence[SessionRow]) -> None:
        gone: list[str] = []
        try:
            for row in rows:
                if await self._deleted(row):
                    gone.append(row.id)
                    self._log.poke(row.id)
                    await self._forget(row.id)
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:  # whatever ends the round: what is gone must be said
            if gone:
                days, names = self._days, ", ".join(gone)
                logger.warning("deleted: nothing had happened for %d days (SKIFF_RETENTION_DAYS) in %s", days, names)

    async def _deleted(self, row: SessionRow) -> bool:
        """Delete this session, unless somebody waits for an answer in it, or something happens just now."""
        state = cached(row)
        state = fold(state, await self._store.events(row.id, state.seq))
        if state.unfinished and state.status != "terminated":
            return False
        try:
            await self._store.delete_session(row.id, if_head=row.head)
        except HeadMoved:
            return False
        return True


async def _to_its_end(step: Callable[[], Awaitable[bool]]) -> None:
    """Take this step as often as there is more to do."""
    more = True
    while more:
        more = await step()
        await asyncio.sleep(PAUSE_SECONDS)
