"""The files that the API shows, and which bytes belong to them, as verbs on rows. Written once over `Database`.

Above: `files.service`, and `store.resources` for the copies that a session gets. Below: a `Database`. It knows rows,
not where bytes lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.ids import new_id, now
from server.store.database import Cursor, Database, Row


@dataclass(frozen=True)
class FileRow:
    """A file as stored; see the table for its three kinds."""

    id: str
    filename: str
    mime_type: str
    size_bytes: int
    created_at: str
    expires_at: str | None = None
    session_id: str | None = None
    blob: str | None = None
    path: str | None = None
    changed: str | None = None


@dataclass(frozen=True)
class Seen:
    """An output as the sandbox shows it now."""

    path: str
    filename: str
    mime_type: str
    size_bytes: int
    created_at: str
    changed: str


COLUMNS = "id, filename, mime_type, size_bytes, created_at, expires_at, session_id, blob, path, changed"


class FileTable:
    """The rows of files and blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: FileRow, also: Callable[[Cursor], None] | None = None) -> None:
        """Keep a file, with its blob, and what else `also` writes in the same transaction."""

        def work(cursor: Cursor) -> None:
            cursor.execute("INSERT INTO blobs (name, created_at) VALUES (:blob, :created_at)", row.__dict__)
            insert(cursor, row)
            if also is not None:
                also(cursor)

        await self._database.write(work)

    async def file(self, file_id: str) -> FileRow | None:
        """The file of this id."""
        return await self._database.read(lambda cursor: find(cursor, file_id))

    async def files(
        self, *, limit: int, after: tuple[str, str] | None, order: str, session_id: str | None
    ) -> list[FileRow]:
        """Files in order of age; `after` is the (created_at, id) of the last one of the page before."""
        where = ["1 = 1"]
        found: dict[str, Any] = {"limit": limit}
        if session_id is not None:
            where.append("session_id = :session_id")
            found["session_id"] = session_id
        if after is not None:
            where.append(f"(created_at, id) {'<' if order == 'desc' else '>'} (:created_at, :id)")
            found |= {"created_at": after[0], "id": after[1]}
        direction = "DESC" if order == "desc" else "ASC"
        sql = (
            f"SELECT {COLUMNS} FROM files WHERE {' AND '.join(where)}"
            f" ORDER BY created_at {direction}, id {direction} LIMIT :limit"
        )
        return [FileRow(*row) for row in await self._database.read(lambda cursor: cursor.all(sql, found))]

    async def named(self, ids: Sequence[str]) -> list[FileRow]:
        """Those of these files that exist, in the order asked."""

        def work(cursor: Cursor) -> list[FileRow]:
            return [row for file_id in ids if (row := find(cursor, file_id))]

        return await self._database.read(work)

    async def remove(self, file_id: str) -> bool:
        """Forget a file. False, and nothing done, while a resource of a session is made of it."""

        def work(cursor: Cursor) -> bool:
            key = {"id": file_id}
            if cursor.one("SELECT 1 FROM resources WHERE file_id = :id", key) is not None:
                return False
            cursor.execute("DELETE FROM files WHERE id = :id", key)
            return True

        return await self._database.write(work)

    async def reconcile(self, session_id: str, seen: Sequence[Seen]) -> None:
        """Let the session's outputs be these: a new path is a new file, a changed one keeps its id."""

        def work(cursor: Cursor) -> None:
            if cursor.one("SELECT 1 FROM sessions WHERE id = :id", {"id": session_id}) is None:
                return  # deleted meanwhile, its outputs with it
            sql = "SELECT path, size_bytes, changed FROM files WHERE session_id = :id AND path IS NOT NULL"
            known = {str(path): (size, changed) for path, size, changed in cursor.all(sql, {"id": session_id})}
            for output in seen:
                before = known.pop(output.path, None)
                if before is None:
                    insert(cursor, FileRow(new_id("file"), session_id=session_id, **output.__dict__))
                elif before != (output.size_bytes, output.changed):
                    cursor.execute(
                        "UPDATE files SET size_bytes = :size_bytes, changed = :changed, created_at = :created_at,"
                        " mime_type = :mime_type WHERE session_id = :session_id AND path = :path",
                        {**output.__dict__, "session_id": session_id},
                    )
            for path in known:
                cursor.execute(
                    "DELETE FROM files WHERE session_id = :id AND path = :path", {"id": session_id, "path": path}
                )

        await self._database.write(work)

    async def discard(self) -> list[str]:
        """Let go of blobs that no file names, and of those of expired files; their names, to be removed from disk."""

        def work(cursor: Cursor) -> list[str]:
            cursor.execute("UPDATE files SET blob = NULL WHERE blob IS NOT NULL AND expires_at <= :now", {"now": now()})
            unused = "SELECT name FROM blobs WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.blob = blobs.name)"
            names = [str(row[0]) for row in cursor.all(unused)]
            for name in names:
                cursor.execute("DELETE FROM blobs WHERE name = :name", {"name": name})
            return names

        return await self._database.write(work)

    async def lose(self, names: Sequence[str]) -> None:
        """Forget blobs whose bytes are gone, with the files that were made of them."""

        def work(cursor: Cursor) -> None:
            for name in names:
                cursor.execute("DELETE FROM files WHERE blob = :name", {"name": name})
                cursor.execute("DELETE FROM blobs WHERE name = :name", {"name": name})

        await self._database.write(work)

    async def blobs(self) -> set[str]:
        """The names of all blobs that are somebody's."""
        rows: list[Row] = await self._database.read(lambda cursor: cursor.all("SELECT name FROM blobs"))
        return {str(row[0]) for row in rows}


def find(cursor: Cursor, file_id: str) -> FileRow | None:
    """The file of this id, inside a transaction."""
    row = cursor.one(f"SELECT {COLUMNS} FROM files WHERE id = :id", {"id": file_id})
    return FileRow(*row) if row else None


def insert(cursor: Cursor, row: FileRow) -> None:
    """Write a file's row, inside a transaction; its blob is there."""
    values = ", ".join(f":{name}" for name in COLUMNS.split(", "))
    cursor.execute(f"INSERT INTO files ({COLUMNS}) VALUES ({values})", row.__dict__)
