"""What is true of the whole data folder: a few values by key, one of them the engine's epoch.

Above: `store.store`, and `store.log`, which refuses older engines. Below: a `Database`.
"""

from __future__ import annotations

from server.errors import StaleWriter
from server.store.database import Cursor
from server.store.table import Table


class MetaTable(Table):
    """Values by key."""

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

    async def put_meta(self, key: str, value: str) -> None:
        """Let a key have this value."""
        await self._database.write(
            lambda cursor: cursor.execute(
                "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = :value",
                {"key": key, "value": value},
            )
        )

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


def check_epoch(cursor: Cursor, epoch: int) -> None:
    """Raises StaleWriter when this is not the engine's epoch any more, inside a transaction."""
    row = cursor.one("SELECT value FROM meta WHERE key = 'epoch'")
    if row is None or int(row[0]) != epoch:
        raise StaleWriter("Another Skiff process drives this data folder now.")
