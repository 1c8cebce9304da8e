"""What whoever watches a running Skiff wants to know: whether it can work, and how much it has to do.

Above: the HTTP application's `/readyz` and `/metrics`. Below: the store and this process's role. It looks when it is
asked and keeps nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from server.engine.role import Role
from server.errors import StoreError
from server.room import Room
from server.store.store import Store

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""For the store to answer a probe; probes give up after a few seconds themselves."""


class Watch:
    """A look at one process."""

    def __init__(self, store: Store, role: Role, room: Room) -> None:
        self._store = store
        self._role = role
        self._room = room

    async def trouble(self) -> str:
        """Why this process cannot do its work now; "" when it can. Anybody may ask, so what names paths is logged."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._store.at_work()
        except (StoreError, TimeoutError) as error:
            logger.warning("not ready: the database does not answer: %s", error or "too slow")
            return "The database does not answer."
        if not self._role.present:
            logger.warning("not ready: no engine: %s", self._role.trouble or "it is starting")
            return "No process drives the sessions."
        return ""

    def shortage(self) -> str:
        """What is short, so that only part of the work is done; "" when nothing is. It names no paths."""
        return self._room.trouble

    async def figures(self) -> Mapping[str, float]:
        """Numbers of this moment, by name."""
        rows = await self._store.sandboxes()
        stored = [row.archive_bytes for row in rows if row.state == "stored"]
        return {
            "sessions_at_work": len(await self._store.at_work()),
            "sandboxes": len(rows) - len(stored),
            "archives": len(stored),
            "archive_bytes": sum(stored),
            "disk_free_bytes": self._room.free,
            "disk_nearly_full": float(bool(self._room.trouble)),
            "tasks": len(asyncio.all_tasks()),
            "engine": float(self._role.engine is not None),
        }
