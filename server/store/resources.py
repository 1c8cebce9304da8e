"""What sessions were given: files and repositories, and how far each has got on its way into the sandbox.

Above: `files.service`, `sessions.service` (which inserts them in its own transaction), `sessions.mounting`.
Below: a `Database`, and `store.files` for the copies. It knows rows, not sandboxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from server.errors import InvalidRequest, NotFound
from server.ids import now
from server.store.body import dump, load
from server.store.database import Cursor, Database, Row
from server.store.files import FileRow, find, insert

WAITING, PLACED, REMOVING = "waiting", "placed", "removing"


@dataclass(frozen=True)
class ResourceRow:
    """A resource as stored. `body` is what the API shows, without id and times; `secret` is what it never shows."""

    id: str
    session_id: str
    type: str
    body: Mapping[str, Any]
    secret: str | None
    file_id: str | None
    state: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class NewResource:
    """A resource that is to be inserted. Of a file: `source` is the upload, `file_id` the copy's id to be."""

    id: str
    type: str
    body: Mapping[str, Any]
    secret: str | None = None
    source: str | None = None
    file_id: str | None = None


_COLUMNS = "id, session_id, type, body, secret, file_id, state, created_at, updated_at"


def insert_resources(cursor: Cursor, session_id: str, new: Sequence[NewResource], most: int, most_bytes: int) -> None:
    """Write a session's resources with their copies, inside the transaction of whoever makes the session.

    Raises NotFound when an upload is gone meanwhile, InvalidRequest when the session then had more than `most` files
    or `most_bytes` of them, or two at one place.
    """
    for resource in new:
        at = now()
        if resource.source is not None and resource.file_id is not None:
            source = find(cursor, resource.source)
            if source is None or source.blob is None:
                raise NotFound(f"File not found: {resource.source}.")
            insert(cursor, _copy(source, resource.file_id, session_id, at))
        cursor.execute(
            f"INSERT INTO resources ({_COLUMNS}) VALUES (:id, :session_id, :type, :body, :secret, :file_id, :state,"
            " :at, :at)",
            {
                "id": resource.id,
                "session_id": session_id,
                "type": resource.type,
                "body": dump(resource.body),
                "secret": resource.secret,
                "file_id": resource.file_id,
                "state": WAITING,
                "at": at,
            },
        )
    if new:
        _check(cursor, session_id, most, most_bytes)


def _copy(source: FileRow, file_id: str, session_id: str, at: str) -> FileRow:
    """The session's own copy: another id, the same bytes. It ends with the session, not with the upload."""
    return replace(source, id=file_id, session_id=session_id, created_at=at, expires_at=None)


def _check(cursor: Cursor, session_id: str, most: int, most_bytes: int) -> None:
    rows = cursor.all(
        "SELECT files.size_bytes FROM resources JOIN files ON files.id = resources.file_id"
        " WHERE resources.session_id = :id",
        {"id": session_id},
    )
    total = sum(int(row[0]) for row in rows)
    if len(rows) > most:
        raise InvalidRequest(f"resources: a session can have at most {most} files. Delete some, or pack them into one.")
    if total > most_bytes:
        raise InvalidRequest(
            f"resources: the files of a session may have {most_bytes:,} bytes in all, these would have {total:,}."
        )


class ResourceTable:
    """The rows of resources."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        session_id: str,
        new: NewResource,
        most: int,
        most_bytes: int,
        also: Callable[[Cursor, ResourceRow], None] | None = None,
    ) -> ResourceRow:
        """Give a session one more; `also` writes what belongs to it in the same transaction.

        Raises as `insert_resources`; InvalidRequest when its place is taken.
        """

        def work(cursor: Cursor) -> ResourceRow:
            path = new.body["mount_path"] + "/"
            for row in _those(cursor, session_id):
                other = row.body["mount_path"] + "/"
                if row.state != REMOVING and (path.startswith(other) or other.startswith(path)):
                    raise InvalidRequest(f"mount_path: {other[:-1]} is taken by another resource of the session.")
            insert_resources(cursor, session_id, [new], most, most_bytes)
            found = cursor.one(f"SELECT {_COLUMNS} FROM resources WHERE id = :id", {"id": new.id})
            assert found is not None
            row = _row(found)
            if also is not None:
                also(cursor, row)
            return row

        return await self._database.write(work)

    async def resource(self, session_id: str, resource_id: str) -> ResourceRow | None:
        """One that is not on its way out."""
        return await self._database.read(lambda cursor: _one(cursor, session_id, resource_id))

    async def resources(self, session_id: str) -> list[ResourceRow]:
        """Those that a session has, oldest first; not those on their way out."""
        rows = await self._database.read(lambda cursor: _those(cursor, session_id))
        return [row for row in rows if row.state != REMOVING]

    async def of_sessions(self, session_ids: Iterable[str]) -> dict[str, list[ResourceRow]]:
        """The same for many sessions at once."""

        def work(cursor: Cursor) -> dict[str, list[ResourceRow]]:
            return {key: [row for row in _those(cursor, key) if row.state != REMOVING] for key in session_ids}

        return await self._database.read(work)

    async def everything(self, session_id: str) -> list[ResourceRow]:
        """Those on their way out too."""
        return await self._database.read(lambda cursor: _those(cursor, session_id))

    async def mark(self, resource_id: str, state: str) -> None:
        """Note how far it has got; an intent to remove it stays."""
        await self._database.write(
            lambda cursor: cursor.execute(
                "UPDATE resources SET state = :state WHERE id = :id AND state <> 'removing'",
                {"id": resource_id, "state": state},
            )
        )

    async def start_again(self, session_id: str, *, files_alone: bool = False) -> None:
        """The sandbox is a new and empty one: everything waits for it (or every file), and nothing need be removed."""
        only = " AND file_id IS NOT NULL" if files_alone else ""

        def work(cursor: Cursor) -> None:
            key = {"id": session_id}
            cursor.execute("DELETE FROM resources WHERE session_id = :id AND state = 'removing'", key)
            cursor.execute(f"UPDATE resources SET state = 'waiting' WHERE session_id = :id{only}", key)

        await self._database.write(work)

    async def set_secret(self, session_id: str, resource_id: str, secret: str) -> ResourceRow | None:
        """Replace what it is fetched with."""

        def work(cursor: Cursor) -> ResourceRow | None:
            cursor.execute(
                "UPDATE resources SET secret = :secret, updated_at = :now WHERE id = :id AND session_id = :session_id",
                {"id": resource_id, "session_id": session_id, "secret": secret, "now": now()},
            )
            return _one(cursor, session_id, resource_id)

        return await self._database.write(work)

    async def remove(self, session_id: str, resource_id: str) -> None:
        """Let the session have it no more. Its copy goes at once; the row stays, as the intent to take it out of the
        sandbox."""

        def work(cursor: Cursor) -> None:
            row = _one(cursor, session_id, resource_id)
            if row is None:
                return
            cursor.execute(
                "UPDATE resources SET state = 'removing', file_id = NULL, secret = NULL WHERE id = :id",
                {"id": resource_id},
            )
            cursor.execute("DELETE FROM files WHERE id = :id", {"id": row.file_id})

        await self._database.write(work)

    async def forget(self, resource_id: str) -> None:
        """It is out of the sandbox."""
        await self._database.write(
            lambda cursor: cursor.execute(
                "DELETE FROM resources WHERE id = :id AND state = 'removing'", {"id": resource_id}
            )
        )


def _one(cursor: Cursor, session_id: str, resource_id: str) -> ResourceRow | None:
    row = cursor.one(
        f"SELECT {_COLUMNS} FROM resources WHERE id = :id AND session_id = :session_id AND state <> 'removing'",
        {"id": resource_id, "session_id": session_id},
    )
    return _row(row) if row else None


def _those(cursor: Cursor, session_id: str) -> list[ResourceRow]:
    rows = cursor.all(
        f"SELECT {_COLUMNS} FROM resources WHERE session_id = :id ORDER BY created_at, id", {"id": session_id}
    )
    return [_row(row) for row in rows]


def _row(row: Row) -> ResourceRow:
    resource_id, session_id, kind, body, *rest = row
    return ResourceRow(resource_id, session_id, kind, load(body), *rest)
