"""API keys as they are kept.

Above: `server.keys`, the only caller. Below: a `Database`. It knows digests, never a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.ids import now
from server.store.body import storable
from server.store.database import Cursor, Database, Row

_COLUMNS = "id, name, digest, created_at, used_at, revoked_at"


@dataclass(frozen=True)
class KeyRow:
    """A key as stored. `id` is public: the key begins with it."""

    id: str
    name: str
    digest: str
    created_at: str
    used_at: str | None = None
    revoked_at: str | None = None


class KeyStore:
    """Verbs on the table of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: KeyRow) -> None:
        """Keep a new key."""

        def work(cursor: Cursor) -> None:
            cursor.execute(
                f"INSERT INTO api_keys ({_COLUMNS}) VALUES (:id, :name, :digest, :created_at, NULL, NULL)",
                {"id": row.id, "name": storable(row.name), "digest": row.digest, "created_at": row.created_at},
            )

        await self._database.write(work)

    async def all(self) -> list[KeyRow]:
        """Every key, the revoked ones too, oldest first."""

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")

        return [KeyRow(*row) for row in await self._database.read(work)]

    async def revoke(self, key_id: str) -> bool:
        """Let a key be good no more, for ever; whether there is such a key."""

        def work(cursor: Cursor) -> bool:
            if cursor.one("SELECT 1 FROM api_keys WHERE id = :id", {"id": key_id}) is None:
                return False
            cursor.execute(
                "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
                {"id": key_id, "now": now()},
            )
            return True

        return await self._database.write(work)

    async def used(self, times: Mapping[str, str]) -> None:
        """Keep when keys were used last, by id."""

        def work(cursor: Cursor) -> None:
            for key_id, at in times.items():
                cursor.execute("UPDATE api_keys SET used_at = :at WHERE id = :id", {"id": key_id, "at": at})

        await self._database.write(work)
