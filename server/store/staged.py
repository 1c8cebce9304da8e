"""Files that wait for a sandbox.

Above: `sessions.workspace` and `sessions.sandboxes`, through the `Store`. Below: a `Database`.
"""

from __future__ import annotations

from server.store.database import Cursor, Row
from server.store.table import Table


class StagedFileTable(Table):
    """Verbs on staged files."""

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
