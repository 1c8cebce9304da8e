"""Agents, in versions, and environments as they are kept.

Above: `catalog.service`, the only caller. Below: a `Database`. It knows rows and JSON, not what an agent is: what is to
become of one is decided by a function that it is given, and calls within the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from server.ids import now
from server.store.body import encoded, load
from server.store.database import Cursor, Database, Row

Table = Literal["agents", "environments"]
Body = dict[str, Any]
Change = Callable[[Body], Mapping[str, Any] | None]
"""From an object as it is to what it shall be; None leaves it. What it raises ends the transaction."""
Position = tuple[str, str]
"""(created_at, id) of the last element of the page before; of versions (number, id)."""
Also = Callable[[Cursor, Body], None]
"""What else is written in the transaction, given what it has made."""

_FIND: Mapping[Table, str] = {
    "agents": "SELECT v.body, t.created_at, t.archived_at FROM agents t"
    " JOIN agent_versions v ON v.agent_id = t.id AND v.version = t.version",
    "environments": "SELECT t.body, t.created_at, t.archived_at FROM environments t",
}
_SIDES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class CatalogStore:
    """Verbs on the two kinds of things that sessions are made from."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, table: Table, body: Mapping[str, Any], also: Also | None = None) -> Body:
        """Keep a new agent or environment. Returns it as it will be read again."""

        def work(cursor: Cursor) -> Body:
            made = _insert(cursor, table, body, None)
            if also is not None:
                also(cursor, made)
            return made

        return await self._database.write(work)

    async def save(self, table: Table, body: Mapping[str, Any], digest: str) -> Body:
        """Keep one that was described inline; an equal one (same digest) that is there already is returned instead."""

        def work(cursor: Cursor) -> Body:
            row = cursor.one(f"{_FIND[table]} WHERE t.digest = :digest", {"digest": digest})
            if row is None:
                return _insert(cursor, table, body, digest)
            # saved anew: it is what its name stands for now
            cursor.execute(
                f"UPDATE {table} SET saved_at = :now WHERE digest = :digest", {"digest": digest, "now": now()}
            )
            return _read(row)

        return await self._database.write(work)

    async def named(self, table: Table, name_or_id: str) -> Body | None:
        """The one with this id, or the newest of those with this name that are not archived."""

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(
                f"{_FIND[table]} WHERE t.id = :key OR (t.name = :key AND t.archived_at IS NULL)"
                " ORDER BY t.saved_at DESC LIMIT 1",
                {"key": name_or_id},
            )

        row = await self._database.read(work)
        return _read(row) if row else None

    async def names(self, table: Table) -> list[str]:
        """The names in use, for error messages; at most 20."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(f"SELECT DISTINCT name FROM {table} WHERE archived_at IS NULL ORDER BY name LIMIT 20")

        return [str(row[0]) for row in await self._database.read(work)]

    async def find(self, table: Table, key: str) -> Body | None:
        """The one with this id; an agent in its newest version."""
        return await self._database.read(lambda cursor: _one(cursor, table, key))

    async def version(self, agent_id: str, version: int) -> Body | None:
        """This version of an agent."""

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(
                "SELECT v.body, t.created_at, t.archived_at FROM agents t JOIN agent_versions v ON v.agent_id = t.id"
                " WHERE t.id = :id AND v.version = :version",
                {"id": agent_id, "version": version},
            )

        row = await self._database.read(work)
        return _read(row) if row else None

    async def change(self, table: Table, key: str, change: Change, also: Also | None = None) -> Body | None:
        """Let one become what `change` says; None when there is none. An agent gets a row for its new version."""

        def work(cursor: Cursor) -> Body | None:
            old = _one(cursor, table, key)
            if old is None:
                return None
            new = change(old)
            made = old if new is None else _replace(cursor, table, new)
            if also is not None:
                also(cursor, made)
            return made

        return await self._database.write(work)

    async def archive(self, table: Table, key: str) -> Body | None:
        """Archive one, once and for all; None when there is none. It is no longer found by what it was made of."""

        def work(cursor: Cursor) -> Body | None:
            cursor.execute(
                f"UPDATE {table} SET archived_at = COALESCE(archived_at, :now), digest = NULL WHERE id = :id",
                {"id": key, "now": now()},
            )
            return _one(cursor, table, key)

        return await self._database.write(work)

    async def delete_environment(self, key: str) -> bool:
        """Remove an environment. False when there is none."""

        def work(cursor: Cursor) -> bool:
            if cursor.one("SELECT 1 FROM environments WHERE id = :id", {"id": key}) is None:
                return False
            cursor.execute("DELETE FROM environments WHERE id = :id", {"id": key})
            return True

        return await self._database.write(work)

    async def page(
        self,
        table: Table,
        limit: int,
        after: Position | None,
        order: str,
        *,
        created: Mapping[str, str],
        include_archived: bool,
    ) -> list[Body]:
        """At most `limit` behind that position, in that order (asc, desc) of creation.

        `created`: bounds of the time of creation, by `gt`, `gte`, `lt`, `lte`.
        """
        where, params = ["1 = 1" if include_archived else "t.archived_at IS NULL"], {"limit": limit, **created}
        where += [f"t.created_at {_SIDES[side]} :{side}" for side in created]
        if after is not None:
            where.append(f"(t.created_at, t.id) {'>' if order == 'asc' else '<'} (:after, :after_id)")
            params |= {"after": after[0], "after_id": after[1]}
        way = "ASC" if order == "asc" else "DESC"
        sql = f"{_FIND[table]} WHERE {' AND '.join(where)} ORDER BY t.created_at {way}, t.id {way} LIMIT :limit"
        return [_read(row) for row in await self._database.read(lambda cursor: cursor.all(sql, params))]

    async def versions(self, agent_id: str, limit: int, after: int | None, order: str) -> list[Body]:
        """At most `limit` versions of an agent behind that one, in that order of their numbers."""
        where, params = "t.id = :id", {"id": agent_id, "limit": limit, "after": after}
        if after is not None:
            where += f" AND v.version {'>' if order == 'asc' else '<'} :after"
        else:
            del params["after"]
        sql = (
            "SELECT v.body, t.created_at, t.archived_at FROM agents t JOIN agent_versions v ON v.agent_id = t.id"
            f" WHERE {where} ORDER BY v.version {'ASC' if order == 'asc' else 'DESC'} LIMIT :limit"
        )
        return [_read(row) for row in await self._database.read(lambda cursor: cursor.all(sql, params))]


def _one(cursor: Cursor, table: Table, key: str) -> Body | None:
    row = cursor.one(f"{_FIND[table]} WHERE t.id = :id", {"id": key})
    return _read(row) if row else None


def _read(row: Sequence[Any]) -> Body:
    """The columns count: an archived agent's older versions were written before it was archived."""
    return {**load(row[0]), "created_at": str(row[1]), "archived_at": row[2]}


def _insert(cursor: Cursor, table: Table, body: Mapping[str, Any], digest: str | None) -> Body:
    kept, text = encoded(body)
    assert kept is not None
    own = "version" if table == "agents" else "body"
    cursor.execute(
        f"INSERT INTO {table} (id, {own}, name, digest, created_at, saved_at)"
        " VALUES (:id, :own, :name, :digest, :at, :now)",
        {
            "id": kept["id"],
            "own": kept["version"] if table == "agents" else text,
            "name": kept["name"],
            "digest": digest,
            "at": kept["created_at"],
            "now": now(),
        },
    )
    if table == "agents":
        _insert_version(cursor, kept, text)
    return dict(kept)


def _insert_version(cursor: Cursor, body: Mapping[str, Any], text: str | None) -> None:
    cursor.execute(
        "INSERT INTO agent_versions (agent_id, version, body) VALUES (:id, :version, :body)",
        {"id": body["id"], "version": body["version"], "body": text},
    )


def _replace(cursor: Cursor, table: Table, body: Mapping[str, Any]) -> Body:
    kept, text = encoded(body)
    assert kept is not None
    own = "version" if table == "agents" else "body"
    cursor.execute(
        f"UPDATE {table} SET {own} = :own, name = :name, digest = NULL, saved_at = :now WHERE id = :id",
        {
            "id": kept["id"],
            "own": kept["version"] if table == "agents" else text,
            "name": kept["name"],
            "now": now(),
        },
    )
    if table == "agents":
        _insert_version(cursor, kept, text)
    return dict(kept)
