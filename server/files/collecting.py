"""The removal of bytes that are no file's any more.

Above: `service`, after each deletion, and `app`, when an engine starts. Below: the rows, which say whose bytes are
whose, and the blobs.
"""

from __future__ import annotations

from server.files.blobs import Blobs
from server.store.files import FileTable


async def collect(table: FileTable, blobs: Blobs) -> None:
    """Remove the bytes of expired files, and those that no file names. Raises StoreError."""
    await blobs.remove(await table.discard())


async def sweep(table: FileTable, blobs: Blobs) -> None:
    """`collect`, and remove what a crash left. Raises StoreError."""
    await collect(table, blobs)
    await blobs.sweep(table.blobs)
