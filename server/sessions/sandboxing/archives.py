"""What sandboxes that were put away have left: one compressed file each, in a folder of the data folder.

Above: `opening` (brings them back), `tending` (puts them away, when idle for long). Below: the backend, which packs
and unpacks, the store, and the blobs. A file here is what an agent made: it is written, read and deleted as a whole,
and never looked into.

The order is what keeps the files in one place at least: the archive is made durable, the row names it, and only then
does the sandbox go; brought back, the row names the sandbox again before the archive goes. What a crash leaves in
between is in no row: the backend's `reap` removes the one, `sweep` the other.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sandbox.errors import SandboxError, SandboxUnavailable, WorkspaceGone
from sandbox.protocol import SandboxBackend, SandboxRef
from server.errors import StoreError
from server.files.blobs import Blobs, Incoming, to_its_end
from server.sessions.spec import Spec
from server.store.store import SandboxRow, Store

logger = logging.getLogger(__name__)


class Archives:
    """The archives of one data folder."""

    def __init__(self, store: Store, backend: SandboxBackend, blobs: Blobs, check: Callable[[], None]) -> None:
        """`check` raises when nothing more should be written."""
        self._store = store
        self._backend = backend
        self._blobs = blobs
        self._check = check

    async def put_away(self, row: SandboxRow, spec: Spec) -> None:
        """Pack the files of a sandbox that nobody uses, then remove it. Cancelled while it packs, it changes nothing.

        Raises TooLarge when the archive would be larger than the session's disk may be, StoreError, NoRoom,
        SandboxError; the sandbox is stopped then, and has its files.
        """
        async with self._blobs.receiving(spec.sandbox.disk_mb << 20, self._check) as incoming:
            async with aclosing(self._backend.pack(reference(row), spec.sandbox)) as portions:
                async for portion in portions:
                    await incoming.write(portion)
            await to_its_end(self._exchange(row, incoming))

    async def _exchange(self, row: SandboxRow, incoming: Incoming) -> None:
        name = await incoming.keep()
        try:
            await self._store.sandbox_stored(row.session_id, name, incoming.size)
        except StoreError:
            await self._blobs.remove([name])
            raise
        try:
            await self._backend.destroy(reference(row))
        except SandboxError as error:
            logger.warning("%s was put away, but is still there: %s; removed at the next start", row.slot, error)

    async def bring_back(self, row: SandboxRow, spec: Spec) -> None:
        """Make the workspace again under the row's slot; the archive stays until `discard`.

        Raises WorkspaceGone when there is no archive any more, SandboxUnavailable when it cannot be unpacked now.
        """
        assert row.archive is not None
        if not await self._blobs.has(row.archive):
            raise WorkspaceGone(f"the archive of {row.slot} is gone")
        try:
            async with aclosing(self._portions(row.archive)) as portions:
                await self._backend.unpack(reference(row), spec.sandbox, portions)
        except SandboxUnavailable as error:
            raise SandboxUnavailable(
                f"its files were put away, and could not be brought back: {error}. They are kept."
            ) from error

    async def _portions(self, name: str) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._blobs.portions(name)) as portions:
                async for portion in portions:
                    yield portion
        except StoreError as error:
            raise SandboxUnavailable(str(error)) from error

    async def discard(self, row: SandboxRow) -> None:
        """Remove the archive of a row that does not need it any more."""
        if row.archive is None:
            return
        try:
            await self._blobs.remove([row.archive])
        except StoreError as error:
            logger.warning("the archive of %s is left to the next start: %s", row.session_id, error)

    async def sweep(self) -> None:
        """Remove what a crash left."""
        await self._blobs.sweep(self._names)

    async def _names(self) -> set[str]:
        return {row.archive for row in await self._store.sandboxes() if row.archive}


def reference(row: SandboxRow) -> SandboxRef:
    """The row as the backend knows it."""
    return SandboxRef(row.backend, row.slot, row.container)
