"""Sandboxes as they are kept, and what is intended with them.

Above: `sessions.sandboxes`, through the `Store`. Below: a `Database`. It knows names, not what they name.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.ids import now
from server.store.database import Cursor, Row
from server.store.table import Table


@dataclass(frozen=True)
class SandboxRow:
    """A session's sandbox, or the intent to make or remove it (`state`: making, live, removing)."""

    session_id: str
    slot: str
    backend: str
    container: str
    incarnation: str
    state: str


class SandboxTable(Table):
    """Verbs on sandboxes."""

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
