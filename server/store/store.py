"""Everything that is kept of sessions, as verbs on a few nouns: each noun has a file, and this is the whole of them.

Above: the use-cases, the engine, the log. Below: a `Database`. What else is kept (catalog, files, keys, answers) has
classes of its own over the same database.
"""

from __future__ import annotations

from server.store.database import Database
from server.store.events import HeadMoved, Stretch
from server.store.log import LogTable
from server.store.meta import MetaTable
from server.store.migrate import migrate
from server.store.request_keys import RequestKeyTable
from server.store.sandboxes import SandboxRow, SandboxTable
from server.store.sessions import Change, Filter, SessionRow, SessionTable, closed
from server.store.spending import SpendingTable
from server.store.staged import StagedFileTable

__all__ = ["Change", "Filter", "HeadMoved", "SandboxRow", "SessionRow", "Store", "Stretch", "closed"]


class Store(MetaTable, SessionTable, LogTable, RequestKeyTable, SandboxTable, StagedFileTable, SpendingTable):
    """The data of one installation."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._version = 0

    async def open(self) -> None:
        """Bring the schema up to date. Raises StoreError when a newer program has written this database."""
        await self._database.write(migrate)

    async def close(self) -> None:
        await self._database.close()

    async def tidy(self) -> bool:
        """Give back a little of the room that the database does not need. Whether there may be more to do."""
        return await self._database.tidy()

    async def changed(self) -> bool:
        """Whether another process has written since the last time this was asked."""
        before, self._version = self._version, await self._database.version()
        return before != self._version
