"""Sandboxes as they are kept, and what is intended with them.

Above: `sessions.sandboxes` and what it is made of, through the `Store`. Below: a `Database`. It knows names, not what
they name.

    making ──► live ◄──► stopped ──► stored ──► live ...        and from everywhere ──► removing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.ids import now
from server.store.database import Cursor, Row
from server.store.sessions import unknown
from server.store.table import Table


@dataclass(frozen=True)
class SandboxRow:
    """A session's sandbox, or the intent to make or remove it.

    state    making, live (running, as far as is known), stopped (only its files are there), stored (and they are in an
             archive), removing
    archive  name of the archive, in state stored; a row that is removed may still have one
    news     what the agent is to be told with its next result, one sentence a line
    """

    session_id: str
    slot: str
    backend: str
    container: str
    incarnation: str
    state: str
    archive: str | None = None
    archive_bytes: int = 0
    news: str = ""


_COLUMNS = "session_id, slot, backend, container, incarnation, state, archive, archive_bytes, news"
_KEPT = "CASE sandboxes.state WHEN 'removing' THEN 'removing' ELSE :state END"
"""An intent to remove stays, whatever becomes of the sandbox meanwhile."""


class SandboxTable(Table):
    """Verbs on sandboxes."""

    async def put_sandbox(self, row: SandboxRow) -> None:
        """Store the row; an intent to remove the sandbox stays, whatever becomes of it meanwhile.

        Raises NotFound when there is no row yet, and no session any more: nobody would ever remove it.
        """

        def work(cursor: Cursor) -> None:
            wanted = cursor.one(
                "SELECT 1 FROM sessions WHERE id = :id UNION ALL SELECT 1 FROM sandboxes WHERE session_id = :id",
                {"id": row.session_id},
            )
            if wanted is None:
                raise unknown(row.session_id)
            cursor.execute(
                f"INSERT INTO sandboxes ({_COLUMNS}, updated_at) VALUES (:session_id, :slot, :backend, :container,"
                " :incarnation, :state, :archive, :archive_bytes, :news, :now)"
                " ON CONFLICT (session_id) DO UPDATE SET slot = :slot, backend = :backend, container = :container,"
                " incarnation = :incarnation, archive = :archive, archive_bytes = :archive_bytes, news = :news,"
                f" updated_at = :now, state = {_KEPT}",
                {**row.__dict__, "now": now()},
            )

        await self._database.write(work)

    async def sandboxes(self) -> list[SandboxRow]:
        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(f"SELECT {_COLUMNS} FROM sandboxes")

        return [SandboxRow(*row) for row in await self._database.read(work)]

    async def sandbox(self, session_id: str) -> SandboxRow | None:
        def work(cursor: Cursor) -> Row | None:
            return cursor.one(f"SELECT {_COLUMNS} FROM sandboxes WHERE session_id = :id", {"id": session_id})

        row = await self._database.read(work)
        return SandboxRow(*row) if row else None

    async def idle_sandboxes(self, backend: str, states: Sequence[str], since: str, most: int) -> list[SandboxRow]:
        """Up to `most` sandboxes in these states that nothing has happened to since then, nor to their sessions, which
        have nothing to do; the longest idle first."""
        named = {f"state_{n}": state for n, state in enumerate(states)}

        def work(cursor: Cursor) -> list[Row]:
            return cursor.all(
                f"SELECT {', '.join(f'sandboxes.{name}' for name in _COLUMNS.split(', '))} FROM sandboxes"
                " JOIN sessions ON sessions.id = sandboxes.session_id WHERE sandboxes.backend = :backend"
                f" AND sandboxes.state IN ({', '.join(f':{name}' for name in named)}) AND sessions.attention = 0"
                " AND sandboxes.updated_at < :since AND sessions.updated_at < :since"
                " ORDER BY sandboxes.updated_at LIMIT :most",
                {"backend": backend, "since": since, "most": most, **named},
            )

        return [SandboxRow(*row) for row in await self._database.read(work)]

    async def sandbox_stopped(self, session_id: str, used_at: str) -> None:
        """A live sandbox has no processes any more; it was used last at that time."""
        await self._change(
            "state = 'stopped', updated_at = CASE WHEN updated_at < :at THEN :at ELSE updated_at END",
            session_id,
            " AND state = 'live'",
            at=used_at,
        )

    async def sandbox_stored(self, session_id: str, archive: str, size: int) -> None:
        """The files of a sandbox are in this archive now."""
        await self._change(
            f"archive = :archive, archive_bytes = :size, updated_at = :now, state = {_KEPT}",
            session_id,
            archive=archive,
            size=size,
            state="stored",
            now=now(),
        )

    async def news_told(self, session_id: str) -> None:
        """The agent was told."""
        await self._change("news = ''", session_id)

    async def _change(self, change: str, session_id: str, only: str = "", **values: str | int) -> None:
        await self._database.write(
            lambda cursor: cursor.execute(
                f"UPDATE sandboxes SET {change} WHERE session_id = :id{only}", {**values, "id": session_id}
            )
        )

    async def forget_sandbox(self, session_id: str) -> None:
        await self._database.write(
            lambda cursor: cursor.execute("DELETE FROM sandboxes WHERE session_id = :id", {"id": session_id})
        )
