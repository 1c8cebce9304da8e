"""SQLite behind the `Database` protocol: one writing and one reading thread, each with a connection of its own.

WAL lets readers go on while a transaction is written; `synchronous=FULL` makes a returned write survive a power cut.
Threads, because a commit waits for the disk (0.3 ms on a fast one, 20 ms on a slow one) and the event loop must not.
Where the disk is fast, the way to a thread and back costs more than the commit, and several times what a few rows from
the cache cost: small writes and reads are then made at once.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from server.errors import StoreBlocked, StoreError
from server.store.database import Cursor, Params, Row

T = TypeVar("T")

BUSY_SECONDS = 10
"""Another process on the same data folder holds the write lock for milliseconds; ten seconds mean that it hangs."""


SLOW_SECONDS = 0.003
"""A small write or read that keeps the event loop this long: ten times what it costs on a fast disk."""
MOST_SLOW = 4
"""Slow ones, less the fast ones between them, from which on it is the disk. One alone is bad luck (one in two hundred
on a quiet machine, one in ten when its cores are wanted), and the way to the thread would cost every one of the next
second more than that one took."""
STALL_SECONDS = 0.03
"""One that takes this long is enough by itself: others wait for the loop."""
RETREAT_SECONDS = 1.0
"""How long small writes or reads go to the thread then, before one is tried at once again: a slow disk costs the loop
one wait a second."""


LOG_BYTES = 16 << 20
"""What the write-ahead log may take up on the disk. A checkpoint at every four megabytes keeps it below that, unless
somebody reads for long, or somebody else always has begun before the last one ends."""
SPARE_PAGES = 1_000
SPARE_SHARE = 10
"""Free pages that are kept for what is written next: four megabytes, or a tenth of a larger file."""
STEP_PAGES = 250
"""Pages that are given back at a time: a megabyte, which takes ten milliseconds."""
CONVERT_BYTES = 512 << 20
"""A database that was made without the means of giving pages back is written anew once, which keeps writers waiting for
a second or two at this size. A larger one is left as it is; its copy by `skiff backup` has the means."""


class _Cursor:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = {}, /) -> None:  # noqa: B006 - never written to
        self._connection.execute(sql, _plain(params))

    def one(self, sql: str, params: Params = {}, /) -> Row | None:  # noqa: B006
        row: Row | None = self._connection.execute(sql, _plain(params)).fetchone()
        return row

    def each(self, sql: str, params: Params = {}, /) -> Iterator[Row]:  # noqa: B006
        yield from self._connection.execute(sql, _plain(params))

    def all(self, sql: str, params: Params = {}, /) -> list[Row]:  # noqa: B006
        return self._connection.execute(sql, _plain(params)).fetchall()


def _plain(params: Params) -> dict[str, Any]:
    return params if type(params) is dict else dict(params)


PRAGMAS = (
    "auto_vacuum=INCREMENTAL",  # takes effect where nothing has been written yet, and whenever all is written anew
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-8000",
    f"journal_size_limit={LOG_BYTES}",
)


class _AtOnce:
    """Whether small work may be done in the event loop. Writes and reads have one each: a cache may hide a slow disk
    from those who read."""

    def __init__(self) -> None:
        self._slow = 0
        """Slow ones, less the fast ones; 0 to MOST_SLOW."""
        self._not_before = 0.0

    @property
    def allowed(self) -> bool:
        return time.monotonic() >= self._not_before

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work."""
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            took = now - began
            if took <= SLOW_SECONDS:
                self._slow = max(0, self._slow - 1)
            else:
                self._slow = MOST_SLOW if took > STALL_SECONDS else min(MOST_SLOW, self._slow + 1)
                if self._slow == MOST_SLOW:
                    self._not_before = now + RETREAT_SECONDS


class SqliteDatabase:
    """An open SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="skiff-store-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="skiff-store-read")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._near_connection: sqlite3.Connection | None = None
        """The event loop's own, for small reads."""
        self._in_thread = 0
        """Writes that the thread has or will have: nothing may use its connection meanwhile."""
        self._writing, self._reading = _AtOnce(), _AtOnce()

    async def open(self) -> None:
        """Open the connections. Raises StoreError when the file cannot be used."""
        self._write_connection = await self._run(self._writer, self._connect)
        self._read_connection = await self._run(self._reader, self._connect)
        self._near_connection = await self._run(self._reader, self._connect)
        for connection in (self._write_connection, self._near_connection):  # the loop itself must wait for nobody
            await self._run(self._writer, connection.execute, "PRAGMA busy_timeout=0")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    async def read(self, work: Callable[[Cursor], T], *, small: bool = False) -> T:
        if small and self._near_connection is not None and self._reading.allowed:
            with suppress(sqlite3.DatabaseError), self._reading.timed():  # a failure is the thread's to meet, and tell
                return self._read(self._near_connection, work)
        return await self._run(self._reader, self._read, self._read_connection, work)

    def _read(self, connection: sqlite3.Connection | None, work: Callable[[Cursor], T]) -> T:
        assert connection is not None
        connection.execute("BEGIN")
        try:
            return work(_Cursor(connection))
        finally:
            connection.execute("COMMIT")

    async def write(
        self, work: Callable[[Cursor], T], *, small: bool = False, done: Callable[[T], None] | None = None
    ) -> T:
        if small and not self._in_thread and self._writing.allowed and self._begin_at_once():
            result = self._write_at_once(work)
            if done is not None:
                done(result)
            return result
        # Shielded: a cancelled caller must not leave it unknown whether its transaction was committed.
        return await asyncio.shield(asyncio.ensure_future(self._write_in_thread(work, done)))

    def _begin_at_once(self) -> bool:
        """Begin a transaction, unless another process has one: waiting for it is the thread's, as is any failure."""
        assert self._write_connection is not None
        try:
            self._write_connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError:
            return False
        return True

    def _write_at_once(self, work: Callable[[Cursor], T]) -> T:
        with self._writing.timed(), self._translated():
            return self._commit(work)

    async def _write_in_thread(self, work: Callable[[Cursor], T], done: Callable[[T], None] | None) -> T:
        result: T = await self._by_writer(self._write, work, time.monotonic() + BUSY_SECONDS)
        if done is not None:
            done(result)
        return result

    async def _by_writer(self, work: Callable[..., T], *arguments: Any) -> T:
        self._in_thread += 1
        try:
            result: T = await self._run(self._writer, work, *arguments)
            return result
        finally:
            self._in_thread -= 1

    def _write(self, work: Callable[[Cursor], T], until: float) -> T:
        """`until`: those that queue behind a lock have waited for it already, and all give up at about their time."""
        with self._patient(until - time.monotonic()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            return self._commit(work)

    @contextmanager
    def _patient(self, seconds: float = BUSY_SECONDS) -> Iterator[sqlite3.Connection]:
        """The connection that writes, waiting for other processes meanwhile: in the thread alone, or the loop waits."""
        assert self._write_connection is not None
        self._write_connection.execute(f"PRAGMA busy_timeout={max(0, round(seconds * 1000))}")
        try:
            yield self._write_connection
        finally:
            self._write_connection.execute("PRAGMA busy_timeout=0")

    def _commit(self, work: Callable[[Cursor], T]) -> T:
        assert self._write_connection is not None
        connection = self._write_connection
        try:
            result = work(_Cursor(connection))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled back by itself; a COMMIT that failed has not
                connection.execute("ROLLBACK")
            raise
        return result

    async def copy(self, target: Path) -> None:
        # In a thread and with a connection of its own: it reads everything, and the reader is everybody's.
        await self._run(None, self._copy, target)

    def _copy(self, target: Path) -> None:
        with closing(self._connect()) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))  # one transaction: it sees one moment
        with closing(sqlite3.connect(target)) as copied:
            (found,) = copied.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        with target.open("rb+") as file:
            os.fsync(file.fileno())

    async def tidy(self) -> bool:
        await self._run(None, self._fold_log)
        return await asyncio.shield(asyncio.ensure_future(self._by_writer(self._give_back)))

    def _fold_log(self) -> None:
        """Fold a write-ahead log that has grown into the database, and empty it if nobody reads in it now."""
        log = self._path.with_name(f"{self._path.name}-wal")
        if not log.exists() or log.stat().st_size <= LOG_BYTES:
            return
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA busy_timeout=50")  # what the second one may keep writers waiting
            for mode in ("PASSIVE", "TRUNCATE"):  # the first keeps nobody waiting, and leaves little to the second
                connection.execute(f"PRAGMA wal_checkpoint({mode})")

    def _give_back(self) -> bool:
        with self._patient() as connection:
            mode, pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("auto_vacuum", "page_count", "freelist_count", "page_size")
            )
            if not mode:
                if pages * size <= CONVERT_BYTES:
                    connection.execute("VACUUM")
                return False
            if free <= max(SPARE_PAGES, pages // SPARE_SHARE):
                return False
            connection.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")  # `execute` would do one page
            return True

    async def version(self) -> int:
        def ask() -> int:
            # The connection that writes: it does not count what it wrote itself.
            assert self._write_connection is not None
            return int(self._write_connection.execute("PRAGMA data_version").fetchone()[0])

        return await self._run(self._writer, ask)

    async def close(self) -> None:
        near, self._near_connection = self._near_connection, None
        if near is not None:
            near.close()
        for executor, connection in ((self._reader, self._read_connection), (self._writer, self._write_connection)):
            if connection is not None:
                await self._run(executor, connection.close)
            executor.shutdown(wait=False)
        self._read_connection = self._write_connection = None

    async def _run(self, executor: ThreadPoolExecutor | None, work: Callable[..., T], *arguments: Any) -> T:
        with self._translated():
            return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the driver's errors become ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            blocked = getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING
            kind = StoreBlocked if blocked else StoreError
            raise kind(f"{self._path}: {error}. {_advice(str(error))}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path} cannot be read: {error}. Restore a backup or choose another folder."
            ) from error


_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""What may be over soon. A full disk is told as an error of input and output where it meets the write-ahead log."""


def _advice(message: str) -> str:
    if "locked" in message:
        return "Another process holds the database; stop it, or wait and try again."
    if "full" in message or "I/O" in message:
        return "Free some disk space; nothing that was written before is lost."
    return "Check that the data folder exists and that this user may write to it."
