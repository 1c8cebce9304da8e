"""A file as the tar that an engine unpacks: root's, readable by all, with the folders above it.

Above: `container`. Below: tarfile's headers. The tar is made while it is sent: of a file of any size, one portion is in
memory.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError

from sandbox.errors import SandboxUnavailable

PORTION_SECONDS = 60.0
"""For the next portion of a file that lies on our own disk; the engine gives up on a silent sender as late."""


def tarred(path: str, size: int, portions: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """The tar of one file, to be read in a thread while `loop` runs; `portions` are its bytes.

    Raises SandboxUnavailable when there are not `size` of them: what was unpacked of it is then no whole file.
    """
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield _header("/".join(parts[:count]), 0o755, tarfile.DIRTYPE)
    yield _header(path, 0o444, tarfile.REGTYPE, size)
    sent = 0
    while portion := _pull(portions, loop):
        sent += len(portion)
        if sent > size:
            break
        yield portion
    if sent != size:
        raise SandboxUnavailable(f"{path} has {size} bytes, and {sent} came")
    yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, mode: int, kind: bytes, size: int = 0) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size = mode, kind, size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _pull(portions: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> bytes:
    """The next portion, b"" at the end."""

    async def following() -> bytes:
        return await anext(portions, b"")

    try:
        return asyncio.run_coroutine_threadsafe(following(), loop).result(PORTION_SECONDS)
    except (TimeoutError, CancelledError):
        raise SandboxUnavailable("the file that was to be placed could not be read") from None
