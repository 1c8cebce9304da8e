"""Sessions as they are kept: what each is made of, and what the lists of them filter by.

Above: `store.store`, and `store.log`, whose appends change a session's row. Below: a `Database`, and the rows that are
written with a session's own. The status that is kept for filters is read off the events' types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.errors import Conflict, NotFound
from server.events import NewEvent, StoredEvent
from server.ids import now
from server.store.body import encoded, storable
from server.store.database import Cursor, Row
from server.store.events import ALL, HeadMoved, clear, events_after, few_after, insert_events
from server.store.request_keys import asked_before, remember
from server.store.table import Table


@dataclass(frozen=True)
class SessionRow:
    """A session as stored. `spec` is frozen; state is a fold of its events."""

    id: str
    thread_id: str
    title: str | None
    spec: Mapping[str, Any]
    head: int
    attention: bool
    fold: Mapping[str, Any] | None
    fold_seq: int
    created_at: str
    updated_at: str
    archived_at: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What an update changes of a session's row, beside the event that tells of it. None leaves a field as it is."""

    title: tuple[str | None] | None = None
    """In a tuple, because no title is a title too."""
    metadata: Mapping[str, str] | None = None
    spec: Mapping[str, Any] | None = None
    archived_at: str | None = None


@dataclass(frozen=True)
class Filter:
    """Which sessions a list shows; None and empty do not filter."""

    archived: bool = False
    """Archived ones too."""
    agent_id: str | None = None
    agent_version: int | None = None
    statuses: Sequence[str] = ()
    created: Mapping[str, str] = field(default_factory=dict)
    """Bounds on `created_at` by gt, gte, lt, lte, as times are stored."""


Tail = Callable[[Cursor, str, int, int], list[StoredEvent] | None]
_SESSION = "id, thread_id, title, spec, head, attention, fold, fold_seq, created_at, updated_at, archived_at, metadata"
AT_ONCE = 200
"""Events that are deleted together with their session: about twenty milliseconds."""
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_STATUS = "CASE WHEN status = 'idle' AND attention = 1 THEN 'running' ELSE status END"
"""What was sent to an idle session has begun its turn, though the engine has not said so yet."""


class SessionTable(Table):
    """Verbs on sessions."""

    async def create_session(
        self,
        row: SessionRow,
        events: Sequence[NewEvent],
        files: Mapping[str, bytes],
        key: tuple[str, str] | None = None,
        also: Callable[[Cursor, str], None] | None = None,
    ) -> str:
        """Store a session with its first events and staged files, all or nothing. Returns its id.

        `also` writes what else belongs to it, given its id, in the same transaction.

        With a `key` (request key, digest of the request) that was used before, returns the id made then; raises
        Conflict when it was used for another request.
        """

        def work(cursor: Cursor) -> str:
            if key is not None:
                answer = asked_before(cursor, "create_session", key)
                if answer is not None:
                    return str(answer["session_id"])
            cursor.execute(
                f"INSERT INTO sessions ({_SESSION}, agent_id, agent_version, status) VALUES (:id, :thread_id, :title,"
                " :spec, :head, :attention, NULL, 0, :created_at, :created_at, NULL, :metadata, :agent_id,"
                " :agent_version, 'idle')",
                {
                    "id": row.id,
                    "thread_id": row.thread_id,
                    "title": storable(row.title),
                    "spec": encoded(row.spec)[1],
                    "head": len(events),
                    "attention": int(row.attention),
                    "created_at": row.created_at,
                    "metadata": encoded(row.metadata)[1],
                    "agent_id": row.spec.get("agent", {}).get("id"),
                    "agent_version": row.spec.get("agent", {}).get("version"),
                },
            )
            insert_events(cursor, row.id, 0, events)
            for path, content in files.items():
                cursor.execute(
                    "INSERT INTO staged_files (session_id, path, content) VALUES (:id, :path, :content)",
                    {"id": row.id, "path": path, "content": content},
                )
            if also is not None:
                also(cursor, row.id)
            if key is not None:
                remember(cursor, "create_session", key, {"session_id": row.id})
            return row.id

        return await self._database.write(work)

    async def created_under(self, key: tuple[str, str]) -> str | None:
        """The id of the session that was made under this key; None when none was. Conflict as above."""
        answer = await self._database.read(lambda cursor: asked_before(cursor, "create_session", key))
        return str(answer["session_id"]) if answer else None

    async def session(self, session_id: str) -> SessionRow:
        """Raises NotFound."""

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(f"SELECT {_SESSION} FROM sessions WHERE id = :id", {"id": session_id})

        row = await self._database.read(work, small=True)
        if row is None:
            raise unknown(session_id)
        return _session(row)

    async def session_and_tail(self, session_id: str) -> tuple[SessionRow, list[StoredEvent]]:
        """A session with the events that its cached fold does not cover. Raises NotFound."""

        def work(cursor: Cursor, tail: Tail) -> tuple[SessionRow, list[StoredEvent] | None]:
            found = cursor.one(f"SELECT {_SESSION} FROM sessions WHERE id = :id", {"id": session_id})
            if found is None:
                raise unknown(session_id)
            row = _session(found)
            return row, tail(cursor, session_id, row.fold_seq if row.fold else 0, ALL)

        row, tail = await self._database.read(lambda cursor: work(cursor, few_after), small=True)
        if tail is None:
            row, tail = await self._database.read(lambda cursor: work(cursor, events_after))
        return row, tail or []

    async def sessions(
        self, chosen: Filter, *, limit: int, after: tuple[str, str] | None, order: str = "desc"
    ) -> list[SessionRow]:
        """By age, `order` asc or desc; `after` is the (created_at, id) of the last one already seen."""
        where, params = _where(chosen)
        if after is not None:
            where.append(f"(created_at, id) {'>' if order == 'asc' else '<'} (:after_at, :after_id)")
            params |= {"after_at": after[0], "after_id": after[1]}
        direction = "ASC" if order == "asc" else "DESC"

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(
                f"SELECT {_SESSION} FROM sessions WHERE {' AND '.join(where)}"
                f" ORDER BY created_at {direction}, id {direction} LIMIT :limit",
                {**params, "limit": limit},
            )

        return [_session(row) for row in await self._database.read(work)]

    async def count(self) -> int:
        """How many sessions there are, archived ones too."""
        row = await self._database.read(lambda cursor: cursor.one("SELECT count(*) FROM sessions"))
        return int(row[0]) if row else 0

    async def at_work(self) -> list[str]:
        """The sessions that have something to do, oldest first."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all("SELECT id FROM sessions WHERE attention = 1 ORDER BY updated_at")

        return [str(row[0]) for row in await self._database.read(work)]

    async def delete_session(self, session_id: str, if_head: int | None = None) -> None:
        """Remove the session with its log; its sandbox row stays, as the intent to remove the sandbox. What is long of
        the log goes in steps (`clear_logs`). `if_head`: only while it rests and this is its newest number, else
        HeadMoved."""

        def work(cursor: Cursor) -> None:
            key = {"id": session_id}
            row = cursor.one("SELECT head, attention FROM sessions WHERE id = :id", key)
            if row is None:
                return
            if if_head is not None and (row[1] or int(row[0]) != if_head):
                raise HeadMoved
            cursor.execute("DELETE FROM sessions WHERE id = :id", key)
            if clear(cursor, session_id, AT_ONCE):
                cursor.execute("INSERT INTO removals (session_id) VALUES (:id)", key)
            cursor.execute("DELETE FROM request_keys WHERE scope = :id", key)
            cursor.execute("UPDATE sandboxes SET state = 'removing' WHERE session_id = :id", key)

        await self._database.write(work)

    async def untouched(self, since: str, after: tuple[str, str], limit: int) -> list[SessionRow]:
        """Sessions at rest that nothing has happened in `since` then, oldest first; `after` is the (created_at, id) of
        the last one already seen. Some of them may wait for an answer: their logs tell."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(
                f"SELECT {_SESSION} FROM sessions WHERE (created_at, id) > (:at, :id) AND created_at < :since"
                " AND updated_at < :since AND attention = 0 AND status NOT IN ('running', 'rescheduling')"
                " ORDER BY created_at, id LIMIT :limit",
                {"at": after[0], "id": after[1], "since": since, "limit": limit},
            )

        return [_session(row) for row in await self._database.read(work)]


def _session(row: Row) -> SessionRow:
    values = list(row)
    values[3] = json.loads(values[3])
    values[5] = bool(values[5])
    values[6] = json.loads(values[6]) if values[6] else None
    values[11] = json.loads(values[11])
    return SessionRow(*values)


def _where(chosen: Filter) -> tuple[list[str], dict[str, Any]]:
    """The conditions of a filter, and what they compare with."""
    where, params = ["1 = 1" if chosen.archived else "archived_at IS NULL"], dict[str, Any]()
    for name in ("agent_id", "agent_version"):
        if (value := getattr(chosen, name)) is not None:
            where.append(f"{name} = :{name}")
            params[name] = value
    for side, bound in chosen.created.items():
        where.append(f"created_at {_OPERATORS[side]} :{side}")
        params[side] = bound
    if chosen.statuses:
        wanted = {f"status_{n}": status for n, status in enumerate(chosen.statuses)}
        where.append(f"{_STATUS} IN ({', '.join(f':{name}' for name in wanted)})")
        params |= wanted
    return where, params


def unknown(session_id: str) -> NotFound:
    """The answer to a name that is no session's."""
    return NotFound(f"No session {session_id!r}. list_sessions (`skiff sessions list`) shows which there are.")


def closed(session_id: str) -> Conflict:
    """The refusal of whatever would change an archived session."""
    return Conflict(f"Session {session_id} is archived: it can be read, but takes nothing new. Create another.")


def change_row(cursor: Cursor, session_id: str, change: Change) -> None:
    """Write what an update changes, inside a transaction."""
    values = {
        "title": storable(change.title[0]) if change.title else None,
        "metadata": encoded(change.metadata)[1],
        "spec": encoded(change.spec)[1],
        "archived_at": change.archived_at,
    }
    changed = [name for name, value in values.items() if value is not None or (name == "title" and change.title)]
    if changed:
        assignments = ", ".join(f"{name} = :{name}" for name in changed)
        cursor.execute(f"UPDATE sessions SET {assignments} WHERE id = :id", {**values, "id": session_id})


def touch(
    cursor: Cursor,
    session_id: str,
    attention: bool | None,
    fold: Mapping[str, Any] | None,
    head: int,
    status: str | None,
) -> None:
    """Let the row stand where the log does after an append, inside its transaction; None leaves a column as it is."""
    parts, params = ["head = :head", "updated_at = :now"], {"head": head, "now": now(), "id": session_id}
    if status is not None:
        parts.append("status = :status")
        params["status"] = status
    if attention is not None:
        parts.append("attention = :attention")
        params["attention"] = int(attention)
    if fold is not None:
        parts += ["fold = :fold", "fold_seq = :head"]
        params["fold"] = encoded(fold)[1]
    cursor.execute(f"UPDATE sessions SET {', '.join(parts)} WHERE id = :id", params)
