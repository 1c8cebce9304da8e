"""The bytes of files, in a folder of their own: written under a temporary name, made durable, then renamed.

Above: `files.service`, `sessions.mounting`. Below: the file system. It knows names and bytes, not whose they are. An
upload that is broken off leaves nothing. Whoever brings bytes in holds a lock on them, which the kernel frees when its
process dies: what nobody holds and nobody names was left by a crash, and `sweep` removes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from server.errors import StoreError, TooLarge

T = TypeVar("T")

PORTION = 1 << 20
"""Bytes read at a time, and gathered before they are written: a thread's hand-over costs more than a small write."""
_TEMPORARY = ".part"


def _always() -> None:
    """Nothing speaks against it."""


class Incoming:
    """Bytes on their way in. Made by `Blobs.receiving`."""

    def __init__(self, file: BinaryIO, path: Path, most: int, check: Callable[[], None]) -> None:
        self._file = file
        self._path = path
        self._most = most
        self._check = check
        self._waiting = bytearray()
        self.size = 0

    async def write(self, portion: bytes) -> None:
        """Take more. Raises TooLarge over the bound, StoreError when the disk refuses."""
        self.size += len(portion)
        if self.size > self._most:
            raise TooLarge(f"A file may have at most {self._most:,} bytes.")
        self._waiting += portion
        if len(self._waiting) >= PORTION:
            await self._flush()

    async def keep(self) -> str:
        """Make what came durable, as the blob whose name is returned. Raises StoreError."""
        await self._flush()
        return await _elsewhere(self._rename)

    async def _flush(self) -> None:
        self._check()
        data, self._waiting = bytes(self._waiting), bytearray()
        await _elsewhere(lambda: self._file.write(data))

    def _rename(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        name = self._path.name.removesuffix(_TEMPORARY)
        self._path.rename(self._path.with_name(name))
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # or a power cut takes the name away again
        finally:
            os.close(folder)
        return name


class Blobs:
    """The folder; made when it is first needed, open to its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def receiving(self, most: int, check: Callable[[], None] = _always) -> AsyncIterator[Incoming]:
        """A place for up to `most` bytes; what was not kept is gone at the end of the block, and what was kept must be
        named by then. Raises StoreError.

        `check` is called before anything is written, and raises when there should not be.
        """
        check()
        file, path = await _elsewhere(self._open)
        try:
            yield Incoming(file, path, most, check)
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # what a full disk did not take is tried once more here
                file.close()

    def _open(self) -> tuple[BinaryIO, Path]:
        """A new file that this process holds."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = self._folder / f"{secrets.token_hex(16)}{_TEMPORARY}"
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file, path
            file.close()  # swept before it was held

    async def portions(self, name: str) -> AsyncGenerator[bytes]:
        """The bytes of a blob, in portions. Raises StoreError when they cannot be read."""
        path = self._folder / name
        file = await _elsewhere(lambda: path.open("rb"))
        try:
            while portion := await _elsewhere(lambda: file.read(PORTION)):
                yield portion
        finally:
            file.close()

    async def copy(self, name: str, folder: Path) -> bool:
        """Make a durable copy of a blob in another folder; False when there is no such blob. Raises StoreError."""
        return await _elsewhere(lambda: self._copy(name, folder))

    def _copy(self, name: str, folder: Path) -> bool:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            source = (self._folder / name).open("rb")
        except FileNotFoundError:
            return False
        with source, (folder / name).open("xb") as target:
            shutil.copyfileobj(source, target, PORTION)
            target.flush()
            os.fsync(target.fileno())
        return True

    async def has(self, name: str) -> bool:
        """Whether there is such a blob."""
        return await _elsewhere((self._folder / name).exists)

    async def remove(self, names: Collection[str]) -> None:
        """Delete blobs; those that are not there are as good as deleted. Raises StoreError."""
        await _elsewhere(lambda: self._remove(names))

    def _remove(self, names: Collection[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    async def sweep(self, known: Callable[[], Awaitable[Collection[str]]]) -> int:
        """Delete what a crash left: bytes that nobody holds and nobody names; how many.

        `known` is asked for the names only when it is clear what nobody holds: who lets go has named it before.
        """
        free = await _elsewhere(lambda: [path for path in self._all() if _if_free(path, lambda: None)])
        named = await known() if free else ()
        left = [path for path in free if path.name not in named]
        return await _elsewhere(lambda: sum(_if_free(path, path.unlink) for path in left))

    def _all(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []


def _if_free(path: Path, act: Callable[[], object]) -> bool:
    """Do it while holding the file, unless somebody else holds it, or it is gone. Whether it was done."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        act()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(file)
    return True


async def _elsewhere(work: Callable[[], T]) -> T:
    """In a thread, for a disk may take its time; to its end, whatever becomes of the caller."""
    try:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work))
    except OSError as error:
        raise StoreError(f"The folder of files cannot be used: {error.strerror or error}. Look at its disk.") from error


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, whatever becomes of the caller, who leaves only then."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen; the cancellation is what the caller hears
        raise
