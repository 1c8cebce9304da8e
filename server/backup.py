"""A copy of a data folder, made while others work on it; a server that is pointed at the copy goes on from there.

The database comes first, as it stood at one moment, then the bytes of the files that this database names: they never
change under their names. Bytes that were deleted in between are let go in the copy too. The copy is an installation of
its own, so that a server on it never takes the sandboxes of the first one for its own, nor for left-overs.

Above: `skiff backup`. Below: the database, the tables of files, the folder of blobs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidRequest, StoreError
from server.files.blobs import Blobs
from server.ids import new_id
from server.store.files import FileTable
from server.store.sqlite import SqliteDatabase
from server.store.store import Store

DATABASE = "skiff.db"
FILES = "files"
ARCHIVES = "archives"
PLAIN = ("token", "skiff.toml")
"""What else belongs to a data folder; the rest of it is made anew by whoever opens it."""


@dataclass(frozen=True)
class Copied:
    """What a copy holds."""

    sessions: int
    at_work: int
    """Of the sessions: a server on the copy goes on with their turns."""
    sandboxes: int
    """Of the sessions: these had a sandbox, whose workspace stays where it is."""
    files: int
    size: int
    """Bytes in all."""


async def back_up(folder: Path, target: Path) -> Copied:
    """Copy the data folder to `target`, which is there when the copy is whole, and not before.

    Raises InvalidRequest when there is nothing to copy, or something where the copy should be; StoreError when the copy
    cannot be made, with what to do.
    """
    _check(folder, target)
    try:
        with _appearing(target) as half:
            return await _copy(folder, half)
    except OSError as error:
        raise StoreError(f"The copy cannot be written to {target}: {error.strerror or error}.") from error


def _check(folder: Path, target: Path) -> None:
    if not (folder / DATABASE).is_file():
        raise InvalidRequest(f"There is no {DATABASE} in {folder}: nothing to copy. Choose the folder with --data-dir.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InvalidRequest(f"{target} exists already. Nothing is overwritten: choose another name, or remove it.")


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside the target, which becomes the target when the block ends well, and goes away otherwise."""
    half = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield half
        _settle(half)
        half.rename(target)
        _settle(target.parent)
    finally:
        shutil.rmtree(half, ignore_errors=True)


async def _copy(folder: Path, half: Path) -> Copied:
    source = SqliteDatabase(folder / DATABASE)
    blobs = Blobs(folder / FILES)
    await source.open()
    try:
        parts = (folder / FILES, folder / ARCHIVES)
        _check_room(half, (folder / DATABASE).stat().st_size + sum(map(_size, parts)))
        await source.copy(half / DATABASE)
    finally:
        await source.close()
    for name in PLAIN:
        if (folder / name).is_file():
            shutil.copy2(folder / name, half / name)
    copy = SqliteDatabase(half / DATABASE)
    await copy.open()
    try:
        store, table = Store(copy), FileTable(copy)
        await store.open()
        await store.put_meta("installation", new_id("inst"))
        names = await table.blobs()
        lost = [name for name in sorted(names) if not await blobs.copy(name, half / FILES)]
        await table.lose(lost)
        rows = await store.sandboxes()
        archives = Blobs(folder / ARCHIVES)  # one that has gone meanwhile is as lost as a live sandbox
        taken = [row for row in rows if row.archive and await archives.copy(row.archive, half / ARCHIVES)]
        sessions, at_work, sandboxes = await store.count(), len(await store.at_work()), len(rows) - len(taken)
    finally:
        await copy.close()
    return Copied(sessions, at_work, sandboxes, len(names - set(lost)), _size(half))


def _check_room(where: Path, needed: int) -> None:
    free = shutil.disk_usage(where).free
    if free < needed:
        raise StoreError(
            f"A copy takes up to {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free at {where.parent}."
            " Choose a place on another disk."
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _settle(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
