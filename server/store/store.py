"""Everything that is kept, as verbs on a few nouns. Written once over `Database`.

Above: `sessions.log` (the only caller of `append`), `sessions.service`, `sessions.sandboxes`. Below: a `Database`.
It knows rows and JSON, not what an event means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import Conflict, NotFound, StaleWriter, StoreError
from server.events import NewEvent, StoredEvent
from server.ids import now
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
_SESSION = "id, thread_id, title, spec, head, attention, fold, fold_seq, created_at, updated_at, archived_at"


def _session(row: Row) -> SessionRow:
    values = list(row)
    values[3] = json.loads(values[3])
    values[5] = bool(values[5])
    values[6] = json.loads(values[6]) if values[6] else None
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


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What databases refuse in text: NUL, and halves of surrogate pairs. One would wedge a session for ever."""


def _storable(value: Any) -> Any:
    """The value with U+FFFD in the place of every unstorable character."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _encoded(value: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, str | None]:
    """The value as it will be read again, and its JSON."""
    text = _json(value)
    if text is None or not ("\\u0000" in text or _UNSTORABLE.search(text)):
        return value, text
    kept: Mapping[str, Any] = _storable(value)
    return kept, _json(kept)


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
        """Whether anything was written, by this process or another, since the last time this was asked."""
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
    ) -> str:
        """Store a session with its first events and staged files, all or nothing. Returns its id.

        With a `key` (request key, digest of the request) that was used before, returns the id made then; raises
        Conflict when it was used for another request.
        """

        def work(cursor: Cursor) -> str:
            if key is not None:
                answer = _asked_before(cursor, "create_session", key)
                if answer is not None:
                    return str(answer["session_id"])
            cursor.execute(
                f"INSERT INTO sessions ({_SESSION}) VALUES (:id, :thread_id, :title, :spec, :head, :attention, NULL, 0,"
                " :created_at, :created_at, NULL)",
                {
                    "id": row.id,
                    "thread_id": row.thread_id,
                    "title": _storable(row.title),
                    "spec": _encoded(row.spec)[1],
                    "head": len(events),
                    "attention": int(row.attention),
                    "created_at": row.created_at,
                },
            )
            _insert_events(cursor, row.id, 0, events)
            for path, content in files.items():
                cursor.execute(
                    "INSERT INTO staged_files (session_id, path, content) VALUES (:id, :path, :content)",
                    {"id": row.id, "path": path, "content": content},
                )
            if key is not None:
                _remember(cursor, "create_session", key, {"session_id": row.id})
            return row.id

        return await self._database.write(work)

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

    async def sessions(self, *, limit: int, before: tuple[str, str] | None, archived: bool) -> list[SessionRow]:
        """Newest first; `before` is the (created_at, id) of the last one already seen."""

        def work(cursor: Cursor) -> list[Row]:
            where = "1 = 1" if archived else "archived_at IS NULL"
            params: dict[str, Any] = {"limit": limit}
            if before is not None:
                where += " AND (created_at, id) < (:created_at, :id)"
                params |= {"created_at": before[0], "id": before[1]}
            return cursor.all(
                f"SELECT {_SESSION} FROM sessions WHERE {where} ORDER BY created_at DESC, id DESC LIMIT :limit", params
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
    ) -> list[StoredEvent]:
        """Number and store events in one transaction; durable when this returns.

        epoch       the engine's; a newer engine's existence raises StaleWriter. Inputs carry none.
        if_head     append only when this is still the newest number, else HeadMoved
        attention   whether the engine has something to do afterwards; None leaves it as it is
        fold        the folded state as of the last of these events, to be kept as a cache
        key         (request key, digest): asked again, the events stored then are returned. Conflict when the key was
                    used for another request.
        Raises NotFound when there is no such session.
        """

        def work(cursor: Cursor) -> list[StoredEvent]:
            if epoch is not None:
                _check_epoch(cursor, epoch)
            if key is not None:
                answer = _asked_before(cursor, session_id, key)
                if answer is not None:
                    return _events(cursor, session_id, int(answer["after"]), int(answer["count"]))
            row = cursor.one("SELECT head FROM sessions WHERE id = :id", {"id": session_id})
            if row is None:
                raise _unknown(session_id)
            head = int(row[0])
            if if_head is not None and head != if_head:
                raise HeadMoved
            stored = _insert_events(cursor, session_id, head, events)
            _touch(cursor, session_id, attention, fold, head + len(events))
            if key is not None:
                _remember(cursor, session_id, key, {"after": head, "count": len(events)})
            return stored

        return await self._database.write(work)

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

    # --- agents and environments -------------------------------------------------------------------------------------

    async def save(self, table: str, body: Mapping[str, Any], digest: str) -> Mapping[str, Any]:
        """Keep an agent or environment; an equal one (same digest) that is there already is returned instead."""
        assert table in ("agents", "environments")

        def work(cursor: Cursor) -> Mapping[str, Any]:
            row = cursor.one(f"SELECT body FROM {table} WHERE digest = :digest", {"digest": digest})
            if row is not None:  # saved anew: it is what its name stands for now
                cursor.execute(
                    f"UPDATE {table} SET created_at = :now WHERE digest = :digest", {"digest": digest, "now": now()}
                )
                return _load(row)
            columns = "id, name, digest, body, created_at" + (", version" if table == "agents" else "")
            values = ":id, :name, :digest, :body, :now" + (", 1" if table == "agents" else "")
            cursor.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({values})",
                {
                    "id": body["id"],
                    "name": _storable(body["name"]),
                    "digest": digest,
                    "body": _encoded(body)[1],
                    "now": now(),
                },
            )
            return body

        return await self._database.write(work)

    async def find(self, table: str, name_or_id: str) -> Mapping[str, Any] | None:
        """The newest agent or environment with this id or name."""
        assert table in ("agents", "environments")

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(
                f"SELECT body FROM {table} WHERE id = :key OR name = :key ORDER BY created_at DESC LIMIT 1",
                {"key": name_or_id},
            )

        row = await self._database.read(work)
        return _load(row) if row else None

    async def names(self, table: str) -> list[str]:
        """The names in use, for error messages; at most 20."""
        assert table in ("agents", "environments")

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(f"SELECT DISTINCT name FROM {table} ORDER BY name LIMIT 20")

        return [str(row[0]) for row in await self._database.read(work)]


def _unknown(session_id: str) -> NotFound:
    return NotFound(f"No session {session_id!r}. list_sessions (`skiff sessions list`) shows which there are.")


def _load(row: Row) -> Mapping[str, Any]:
    body = json.loads(row[0])
    if not isinstance(body, dict):
        raise StoreError("A stored object is not a mapping; the database was changed by another program.")
    return body


def _insert_events(cursor: Cursor, session_id: str, head: int, events: Sequence[NewEvent]) -> list[StoredEvent]:
    stored = []
    for seq, event in enumerate(events, head + 1):
        (public, public_json), (private, private_json) = _encoded(event.public), _encoded(event.private)
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


def _touch(cursor: Cursor, session_id: str, attention: bool | None, fold: Mapping[str, Any] | None, head: int) -> None:
    parts, params = ["head = :head", "updated_at = :now"], {"head": head, "now": now(), "id": session_id}
    if attention is not None:
        parts.append("attention = :attention")
        params["attention"] = int(attention)
    if fold is not None:
        parts += ["fold = :fold", "fold_seq = :head"]
        params["fold"] = _encoded(fold)[1]
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


def _remember(cursor: Cursor, scope: str, key: tuple[str, str], answer: Mapping[str, Any]) -> None:
    cursor.execute(
        "INSERT INTO request_keys (scope, key, digest, answer, created_at)"
        " VALUES (:scope, :key, :digest, :answer, :now)",
        {"scope": scope, "key": key[0], "digest": key[1], "answer": _json(answer), "now": now()},
    )
