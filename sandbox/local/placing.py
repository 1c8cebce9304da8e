"""Files that a session is given, in a folder of ours that the sandbox shows read-only.

Above: `sandbox`. Below: the file system. No agent can write there, so that nothing of it is a link or of another's
making.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from sandbox.errors import SandboxUnavailable

T = TypeVar("T")

PART = ".skiff-part"
"""What it is called while it comes; never a name that a caller gives."""


async def place(folder: Path, path: str, size: int, portions: AsyncIterator[bytes]) -> None:
    """See `sandbox.protocol.Sandbox.place`. It appears whole."""
    target = folder / path
    part = folder / PART
    await _elsewhere(lambda: _make_parents(folder, target))
    file = await _elsewhere(lambda: part.open("wb"))
    try:
        sent = 0
        async for portion in portions:
            sent += len(portion)
            await _elsewhere(partial(file.write, portion))
        file.close()
        if sent != size:
            raise SandboxUnavailable(f"{path} has {size} bytes, and {sent} came")
        part.chmod(0o444)
        await _elsewhere(lambda: _rename(part, target))
    finally:
        file.close()
        part.unlink(missing_ok=True)


async def unplace(folder: Path, path: str) -> None:
    """See `sandbox.protocol.Sandbox.unplace`."""
    await _elsewhere(lambda: _clear(folder / path))


def _make_parents(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in target.relative_to(folder).parents:
        (folder / parent).chmod(0o755)  # whatever our umask is


def _rename(part: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)  # of a file that was once placed below; nothing is there now
    part.rename(target)


def _clear(target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


async def _elsewhere(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise SandboxUnavailable(f"the file could not be placed: {error.strerror or error}") from error
