"""Sessions, their logs and their sandboxes, as verbs on a few nouns. Written once over `Database`.

Above: `sessions.log` (the only caller of `append`), `sessions.service`, `sessions.sandboxes`. Below: a `Database`.
It knows rows and JSON, not what an event means; the status that it keeps for filters is read off the events' types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.errors import Conflict, NotFound, StaleWriter
from server.events import NewEvent, StoredEvent, status_after
from server.ids import now
from server.store.body import dump, encoded, storable
from server.store.database import Cursor, Database, Row
from server.store.migrate import migrate


class HeadMoved(Exception):
    """A conditional append found a newer event than the caller had read. Read on and decide again."""


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


@dataclass(frozen=True)
class SandboxRow:
    """A session's sandbox, or the intent to make or remove it (`state`: making, live, removing)."""

    session_id: str
    slot: str
    backend: str
    container: str
    incarnation: str
    state: str


ALL = 1_000_000
"""Events: more than any session has."""
_SESSION = "id, thread_id, title, spec, head, attention, fold, fold_seq, created_at, updated_at, archived_at, metadata"
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_STATUS = "CASE WHEN status = 'idle' AND attention = 1 THEN 'running' ELSE status END"
"""What was sent to an idle session has begun its turn, though the engine has not said so yet."""


def _session(row: Row) -> SessionRow:
    values = list(row)
    values[3] = json.loads(values[3])
    values[5] = bool(values[5])
    values[6] = json.loads(values[6]) if values[6] else None
    values[11] = json.loads(values[11])
    return SessionRow(*values)


def _event(row: Row) -> StoredEvent:
    seq, session_id, thread_id, event_id, kind, public, private = row
    return StoredEvent(
        seq,
        session_id,
        thread_id,
        event_id,
        kind,
        json.loads(public) if public else None,
        json.loads(private) if private else None,
    )


class Store:
    """The data of one installation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = 0

    async def open(self) -> None:
        """Bring the schema up to date. Raises StoreError when a newer program has written this database."""
        await self._database.write(migrate)

    async def close(self) -> None:
        await self._database.close()

    async def changed(self) -> bool:
        """Whether another process has written since the last time this was asked."""
        before, self._version = self._version, await self._database.version()
        return before != self._version

    # --- meta --------------------------------------------------------------------------------------------------------

    async def meta(self, key: str, default: str) -> str:
        """The value of a key; written with `default` when it is not there yet."""

        def work(cursor: Cursor) -> str:
            cursor.execute(
                "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING",
                {"key": key, "value": default},
            )
            row = cursor.one("SELECT value FROM meta WHERE key = :key", {"key": key})
            assert row is not None
            return str(row[0])

        return await self._database.write(work)

    async def next_epoch(self) -> int:
        """Become the engine: every writer with a lower epoch is refused from now on."""

        def work(cursor: Cursor) -> int:
            row = cursor.one("SELECT value FROM meta WHERE key = 'epoch'")
            epoch = int(row[0]) + 1 if row else 1
            cursor.execute(
                "INSERT INTO meta (key, value) VALUES ('epoch', :value) ON CONFLICT (key) DO UPDATE SET value = :value",
                {"value": str(epoch)},
            )
            return epoch

        return await self._database.write(work)

    # --- sessions ----------------------------------------------------------------------------------------------------

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
                answer = _asked_before(cursor, "create_session", key)
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
            _insert_events(cursor, row.id, 0, events)
            for path, content in files.items():
                cursor.execute(
                    "INSERT INTO staged_files (session_id, path, content) VALUES (:id, :path, :content)",
                    {"id": row.id, "path": path, "content": content},
                )
            if also is not None:
                also(cursor, row.id)
            if key is not None:
                _remember(cursor, "create_session", key, {"session_id": row.id})
            return row.id

        return await self._database.write(work)

    async def created_under(self, key: tuple[str, str]) -> str | None:
        """The id of the session that was made under this key; None when none was. Conflict as above."""
        answer = await self._database.read(lambda cursor: _asked_before(cursor, "create_session", key))
        return str(answer["session_id"]) if answer else None

    async def session(self, session_id: str) -> SessionRow:
        """Raises NotFound."""

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(f"SELECT {_SESSION} FROM sessions WHERE id = :id", {"id": session_id})

        row = await self._database.read(work)
        if row is None:
            raise _unknown(session_id)
        return _session(row)

    async def session_and_tail(self, session_id: str) -> tuple[SessionRow, list[StoredEvent]]:
        """A session with the events that its cached fold does not cover. Raises NotFound."""

        def work(cursor: Cursor) -> tuple[SessionRow, list[StoredEvent]] | None:
            found = cursor.one(f"SELECT {_SESSION} FROM sessions WHERE id = :id", {"id": session_id})
            if found is None:
                return None
            row = _session(found)
            return row, _events(cursor, session_id, row.fold_seq if row.fold else 0, ALL)

        read = await self._database.read(work)
        if read is None:
            raise _unknown(session_id)
        return read

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

    async def at_work(self) -> list[str]:
        """The sessions that have something to do, oldest first."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all("SELECT id FROM sessions WHERE attention = 1 ORDER BY updated_at")

        return [str(row[0]) for row in await self._database.read(work)]

    async def delete_session(self, session_id: str) -> None:
        """Remove the session with its log; its sandbox row stays, as the intent to remove the sandbox."""

        def work(cursor: Cursor) -> None:
            cursor.execute("DELETE FROM sessions WHERE id = :id", {"id": session_id})
            cursor.execute("DELETE FROM request_keys WHERE scope = :id", {"id": session_id})
            cursor.execute("UPDATE sandboxes SET state = 'removing' WHERE session_id = :id", {"id": session_id})

        await self._database.write(work)

    # --- the log -----------------------------------------------------------------------------------------------------

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
                _check_epoch(cursor, epoch)
            if key is not None:
                answer = _asked_before(cursor, session_id, key)
                if answer is not None:
                    return _answered(cursor, session_id, answer)
            row = cursor.one("SELECT head, archived_at FROM sessions WHERE id = :id", {"id": session_id})
            if row is None:
                raise _unknown(session_id)
            head = int(row[0])
            if if_head is not None and head != if_head:
                raise HeadMoved
            if row[1] is not None and epoch is None:
                raise closed(session_id)
            stored = _insert_events(cursor, session_id, head, events)
            _touch(cursor, session_id, attention, fold, head + len(events), status_after(events))
            if change is not None:
                _change(cursor, session_id, change)
            if key is not None:
                _remember(cursor, session_id, key, {"after": head, "count": len(events)})
            return stored

        return await self._database.write(work, small=True, done=done)

    async def appended_under(self, session_id: str, key: tuple[str, str]) -> list[StoredEvent] | None:
        """What was appended under this key before; None when nothing was. Conflict as above."""

        def work(cursor: Cursor) -> list[StoredEvent] | None:
            answer = _asked_before(cursor, session_id, key)
            return None if answer is None else _answered(cursor, session_id, answer)

        return await self._database.read(work)

    async def events(self, session_id: str, after: int = 0, limit: int = ALL) -> list[StoredEvent]:
        """The events numbered above `after`, in order."""
        return await self._database.read(lambda cursor: _events(cursor, session_id, after, limit))

    # --- sandboxes ---------------------------------------------------------------------------------------------------

    async def put_sandbox(self, row: SandboxRow) -> None:
        """Store the row; an intent to remove the sandbox stays, whatever becomes of it meanwhile."""

        def work(cursor: Cursor) -> None:
            cursor.execute(
                "INSERT INTO sandboxes (session_id, slot, backend, container, incarnation, state, updated_at)"
                " VALUES (:session_id, :slot, :backend, :container, :incarnation, :state, :now)"
                " ON CONFLICT (session_id) DO UPDATE SET slot = :slot, backend = :backend, container = :container,"
                " incarnation = :incarnation, updated_at = :now,"
                " state = CASE sandboxes.state WHEN 'removing' THEN 'removing' ELSE :state END",
                {**row.__dict__, "now": now()},
            )

        await self._database.write(work)

    async def sandboxes(self) -> list[SandboxRow]:
        def work(cursor: Cursor) -> list[Row]:
            return cursor.all("SELECT session_id, slot, backend, container, incarnation, state FROM sandboxes")

        return [SandboxRow(*row) for row in await self._database.read(work)]

    async def sandbox(self, session_id: str) -> SandboxRow | None:
        def work(cursor: Cursor) -> Row | None:
            return cursor.one(
                "SELECT session_id, slot, backend, container, incarnation, state FROM sandboxes WHERE session_id = :id",
                {"id": session_id},
            )

        row = await self._database.read(work)
        return SandboxRow(*row) if row else None

    async def forget_sandbox(self, session_id: str) -> None:
        await self._database.write(
            lambda cursor: cursor.execute("DELETE FROM sandboxes WHERE session_id = :id", {"id": session_id})
        )

    # --- staged files ------------------------------------------------------------------------------------------------

    async def staged_files(self, session_id: str) -> dict[str, bytes]:
        """Files that wait for the sandbox, by path."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(
                "SELECT path, content FROM staged_files WHERE session_id = :id ORDER BY path", {"id": session_id}
            )

        return {str(path): bytes(content) for path, content in await self._database.read(work)}

    async def stage_file(self, session_id: str, path: str, content: bytes) -> bool:
        """Let a file wait for the sandbox. False, and nothing done, when there is one already, or about to be."""

        def work(cursor: Cursor) -> bool:
            key = {"id": session_id}
            if cursor.one("SELECT 1 FROM sandboxes WHERE session_id = :id", key) is not None:
                return False
            cursor.execute(
                "INSERT INTO staged_files (session_id, path, content) VALUES (:id, :path, :content)"
                " ON CONFLICT (session_id, path) DO UPDATE SET content = :content",
                {**key, "path": path, "content": content},
            )
            return True

        return await self._database.write(work)

    async def unstage_files(self, session_id: str) -> None:
        await self._database.write(
            lambda cursor: cursor.execute("DELETE FROM staged_files WHERE session_id = :id", {"id": session_id})
        )


def _unknown(session_id: str) -> NotFound:
    return NotFound(f"No session {session_id!r}. list_sessions (`skiff sessions list`) shows which there are.")


def _insert_events(cursor: Cursor, session_id: str, head: int, events: Sequence[NewEvent]) -> list[StoredEvent]:
    stored = []
    for seq, event in enumerate(events, head + 1):
        (public, public_json), (private, private_json) = encoded(event.public), encoded(event.private)
        cursor.execute(
            "INSERT INTO events (session_id, seq, id, thread_id, type, public, private)"
            " VALUES (:session_id, :seq, :id, :thread_id, :type, :public, :private)",
            {
                "session_id": session_id,
                "seq": seq,
                "id": event.id,
                "thread_id": event.thread_id,
                "type": event.type,
                "public": public_json,
                "private": private_json,
            },
        )
        stored.append(StoredEvent(seq, session_id, event.thread_id, event.id, event.type, public, private))
    return stored


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


def closed(session_id: str) -> Conflict:
    """The refusal of whatever would change an archived session."""
    return Conflict(f"Session {session_id} is archived: it can be read, but takes nothing new. Create another.")


def _change(cursor: Cursor, session_id: str, change: Change) -> None:
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


def _touch(
    cursor: Cursor,
    session_id: str,
    attention: bool | None,
    fold: Mapping[str, Any] | None,
    head: int,
    status: str | None,
) -> None:
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


def _events(cursor: Cursor, session_id: str, after: int, limit: int) -> list[StoredEvent]:
    rows = cursor.all(
        "SELECT seq, session_id, thread_id, id, type, public, private FROM events"
        " WHERE session_id = :id AND seq > :after ORDER BY seq LIMIT :limit",
        {"id": session_id, "after": after, "limit": limit},
    )
    return [_event(row) for row in rows]


def _check_epoch(cursor: Cursor, epoch: int) -> None:
    row = cursor.one("SELECT value FROM meta WHERE key = 'epoch'")
    if row is None or int(row[0]) != epoch:
        raise StaleWriter("Another Skiff process drives this data folder now.")


def _asked_before(cursor: Cursor, scope: str, key: tuple[str, str]) -> Mapping[str, Any] | None:
    row = cursor.one(
        "SELECT digest, answer FROM request_keys WHERE scope = :scope AND key = :key", {"scope": scope, "key": key[0]}
    )
    if row is None:
        return None
    if row[0] != key[1]:
        raise Conflict(f"request_key {key[0]!r} was used before for another request. Use a new key.")
    answer: Mapping[str, Any] = json.loads(row[1])
    return answer


def _answered(cursor: Cursor, session_id: str, answer: Mapping[str, Any]) -> list[StoredEvent]:
    return _events(cursor, session_id, int(answer["after"]), int(answer["count"]))


def _remember(cursor: Cursor, scope: str, key: tuple[str, str], answer: Mapping[str, Any]) -> None:
    cursor.execute(
        "INSERT INTO request_keys (scope, key, digest, answer, created_at)"
        " VALUES (:scope, :key, :digest, :answer, :now)",
        {"scope": scope, "key": key[0], "digest": key[1], "answer": dump(answer), "now": now()},
    )
