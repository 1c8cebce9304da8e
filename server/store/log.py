"""The log as it is kept: appended to by number, read from a number on.

Above: `sessions.log`, the only caller of `append`. Below: a `Database`, and the session's row, which every append
touches. It knows numbers, epochs and keys, not what an event means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.events import NewEvent, StoredEvent, status_after
from server.store.database import Cursor
from server.store.events import ALL, HeadMoved, Stretch, clear, events_after, few_after, insert_events, stretch
from server.store.meta import check_epoch
from server.store.request_keys import asked_before, remember
from server.store.sessions import Change, change_row, closed, touch, unknown
from server.store.spending import add_spending
from server.store.table import Table


class LogTable(Table):
    """Verbs on the log."""

    async def append(
        self,
        session_id: str,
        events: Sequence[NewEvent],
        *,
        epoch: int | None = None,
        if_head: int | None = None,
        attention: bool | None = None,
        fold: Mapping[str, Any] | None = None,
        key: tuple[str, str] | None = None,
        change: Change | None = None,
        done: Callable[[list[StoredEvent]], None] | None = None,
    ) -> list[StoredEvent]:
        """Number and store events in one transaction; durable when this returns.

        epoch       the engine's; a newer engine's existence raises StaleWriter. Inputs carry none.
        if_head     append only when this is still the newest number, else HeadMoved
        attention   whether the engine has something to do afterwards; None leaves it as it is
        fold        the folded state as of the last of these events, to be kept as a cache
        key         (request key, digest): asked again, the events stored then are returned. Conflict when the key was
                    used for another request.
        change      what changes of the session's row with it
        done        called once they are durable, whatever becomes of the caller
        Raises NotFound when there is no such session; Conflict when it is archived, but for the engine, which finishes.
        """

        def work(cursor: Cursor) -> list[StoredEvent]:
            if epoch is not None:
                check_epoch(cursor, epoch)
            if key is not None:
                answer = asked_before(cursor, session_id, key)
                if answer is not None:
                    return _answered(cursor, session_id, answer)
            row = cursor.one("SELECT head, archived_at FROM sessions WHERE id = :id", {"id": session_id})
            if row is None:
                raise unknown(session_id)
            head = int(row[0])
            if if_head is not None and head != if_head:
                raise HeadMoved
            if row[1] is not None and epoch is None:
                raise closed(session_id)
            stored = insert_events(cursor, session_id, head, events)
            add_spending(cursor, events)
            touch(cursor, session_id, attention, fold, head + len(events), status_after(events))
            if change is not None:
                change_row(cursor, session_id, change)
            if key is not None:
                remember(cursor, session_id, key, {"after": head, "count": len(events)})
            return stored

        return await self._database.write(work, small=True, done=done, by=session_id)

    async def appended_under(self, session_id: str, key: tuple[str, str]) -> list[StoredEvent] | None:
        """What was appended under this key before; None when nothing was. Conflict as above."""

        def work(cursor: Cursor) -> list[StoredEvent] | None:
            answer = asked_before(cursor, session_id, key)
            return None if answer is None else _answered(cursor, session_id, answer)

        return await self._database.read(work)

    async def events(self, session_id: str, after: int = 0, limit: int = ALL) -> list[StoredEvent]:
        """The events numbered above `after`, in order."""
        few = await self._database.read(lambda cursor: few_after(cursor, session_id, after, limit), small=True)
        if few is not None:
            return few
        return await self._database.read(lambda cursor: events_after(cursor, session_id, after, limit))

    async def clear_logs(self, limit: int) -> bool:
        """Remove at most `limit` events of deleted sessions. Whether there may be more."""

        def work(cursor: Cursor) -> bool:
            row = cursor.one("SELECT session_id FROM removals LIMIT 1")
            if row is not None and not clear(cursor, row[0], limit):
                cursor.execute("DELETE FROM removals WHERE session_id = :id", {"id": row[0]})
            return row is not None

        return await self._database.write(work)

    async def stretch(self, session_id: str, which: Stretch) -> list[StoredEvent]:
        """These events, without the private parts of those that have a public one."""
        return await self._database.read(lambda cursor: stretch(cursor, session_id, which))


def _answered(cursor: Cursor, session_id: str, answer: Mapping[str, Any]) -> list[StoredEvent]:
    return events_after(cursor, session_id, int(answer["after"]), int(answer["count"]))
