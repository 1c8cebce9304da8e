"""SQLite behind the `Database` protocol: one writing and one reading thread, each with a connection of its own.

WAL lets readers go on while a transaction is written; `synchronous=FULL` makes a returned write survive a power cut.
Threads, because a commit waits for the disk (0.3 ms on a fast one, 20 ms on a slow one) and the event loop must not.
Where the disk is fast, the way to a thread and back costs more than the commit, and several times what a few rows from
the cache cost: small writes and reads are then made at once. Where it is slow, or many write, the small writes that
come while the disk is waited for are gathered, and the next commit is for all of them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from server.errors import StoreBlocked, StoreError
from server.store.at_once import AtOnce, Company
from server.store.database import Cursor, Params, Row
from server.store.gathered import MOST_TOGETHER, Gathered

T = TypeVar("T")

BUSY_SECONDS = 10
"""Another process on the same data folder holds the write lock for milliseconds; ten seconds mean that it hangs."""


LOG_BYTES = 16 << 20
"""What the write-ahead log may take up on the disk. A checkpoint at every four megabytes keeps it below that, unless
somebody reads for long, or somebody else always has begun before the last one ends."""
STRETCH_BYTES = 4 << 20
"""What it has from the start: as much as comes between two checkpoints."""
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


CACHE = "cache_size=-8000"
PRAGMAS = (
    "auto_vacuum=INCREMENTAL",  # takes effect where nothing has been written yet, and whenever all is written anew
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    CACHE,
    f"journal_size_limit={LOG_BYTES}",
)


class SqliteDatabase:
    """An open SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Path(f"{os.path.realpath(path)}-wal")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="skiff-store-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="skiff-store-read")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._near_connection: sqlite3.Connection | None = None
        """The event loop's own, for small reads."""
        self._turn = asyncio.Lock()
        """Of whoever writes across an await: nothing else may use its connection meanwhile."""
        self._writing, self._stating, self._reading = AtOnce(), AtOnce(), AtOnce()
        """Of writes the whole, and their statements alone."""
        self._company = Company()
        self._gathered: list[Gathered[Any]] = []
        self._gathering: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the connections. Raises StoreError when the file cannot be used."""
        self._write_connection = await self._run(self._writer, self._connect)
        self._read_connection = await self._run(self._reader, self._connect)
        self._near_connection = await self._run(self._reader, self._connect)
        for connection in (self._write_connection, self._near_connection):  # the loop itself must wait for nobody
            await self._run(self._writer, connection.execute, "PRAGMA busy_timeout=0")
        await self._run(self._writer, self._stretch_log, self._write_connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _stretch_log(self, connection: sqlite3.Connection) -> None:
        """Give the write-ahead log its usual length in ten milliseconds: a commit that makes the file longer waits for
        the file system's own log too, a quarter of its time. What is written is taken back; it only has to be more than
        the cache holds. Trouble is for those to meet, and to tell, who need what is troubled."""
        if self._log_size() >= STRETCH_BYTES:
            return
        with suppress(sqlite3.DatabaseError, OSError):
            connection.execute("BEGIN IMMEDIATE")  # not while another process writes
            connection.execute("PRAGMA cache_size=10")
            try:
                connection.execute("CREATE TABLE stretch (body BLOB)")
                connection.execute("INSERT INTO stretch VALUES (zeroblob(?))", (STRETCH_BYTES,))
            finally:
                whole = connection.in_transaction  # a full disk has ended it
                if whole:
                    connection.execute("ROLLBACK")
                connection.execute(f"PRAGMA {CACHE}")
                if not whole:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with self._log.open("rb+") as file:  # which has no locks that closing it could lose
                os.fsync(file.fileno())

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

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
        self,
        work: Callable[[Cursor], T],
        *,
        small: bool = False,
        done: Callable[[T], None] | None = None,
        by: str | None = None,
    ) -> T:
        alone = small and not self._company.met(by)
        free = self._gathering is None and not self._turn.locked()
        fast = self._writing.allowed and self._stating.allowed
        if alone and free and fast and self._begin_at_once():
            result = self._write_at_once(work)
            if done is not None:
                done(result)
            return result
        # Shielded: a cancelled caller must not leave it unknown whether its transaction was committed.
        if small:
            return await asyncio.shield(self._gather(work, done))
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
        with self._writing.timed(), self._translated(), self._all_or_nothing() as connection:
            with self._stating.timed():
                result = work(_Cursor(connection))
            connection.execute("COMMIT")
        return result

    def _gather(self, work: Callable[[Cursor], T], done: Callable[[T], None] | None) -> asyncio.Future[T]:
        """Have it written with others, once whoever writes now is done."""
        one = Gathered(work, done, time.monotonic() + BUSY_SECONDS)
        self._gathered.append(one)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._write_gathered(), name="gathered writes")
        return one.written

    async def _write_gathered(self) -> None:
        together: Sequence[Gathered[Any]] = ()
        try:
            while self._gathered:
                async with self._turn:
                    together, self._gathered = self._gathered[:MOST_TOGETHER], self._gathered[MOST_TOGETHER:]
                    again = await self._write_together(together) and len(together) > 1
                    for one in together:
                        if again:  # it may be one alone that does not fit, or has waited long enough
                            await self._write_together([one])
                        one.tell()
        finally:  # whatever ends it, nobody waits for ever
            self._gathering = None
            for one in (*together, *self._gathered):
                one.written.cancel()
            self._gathered = []

    async def _write_together(self, together: Sequence[Gathered[Any]]) -> bool:
        """In one transaction, of which the thread has only what waits: it would need Python's lock for each statement,
        and the loop seldom lets go of it. Whether all of it failed."""
        try:
            with self._translated():
                if not self._begin_at_once():
                    await self._in_writer(self._begin, together[0].until)
                with self._all_or_nothing() as connection:
                    for one in together:
                        if self._stating.allowed:
                            with self._stating.timed():
                                self._make(one, connection)
                        else:
                            await self._in_writer(self._make, one, connection)
                    await self._in_writer(connection.execute, "COMMIT")
        except Exception as error:
            for one in together:
                one.error = error
            return True
        return False

    def _make(self, one: Gathered[Any], connection: sqlite3.Connection) -> None:
        """As if alone: when it fails nothing of it is left, and the others stay. Raises what has ended them all."""
        connection.execute("SAVEPOINT one")
        one.error = None
        try:
            with self._translated():
                one.result = one.work(_Cursor(connection))
        except Exception as error:
            if not connection.in_transaction:  # a full or broken disk has rolled all of it back
                raise
            one.error = error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    async def _write_in_thread(self, work: Callable[[Cursor], T], done: Callable[[T], None] | None) -> T:
        result: T = await self._by_writer(self._write, work, time.monotonic() + BUSY_SECONDS)
        if done is not None:
            done(result)
        return result

    async def _by_writer(self, work: Callable[..., T], *arguments: Any) -> T:
        async with self._turn:
            return await self._in_writer(work, *arguments)

    async def _in_writer(self, work: Callable[..., T], *arguments: Any) -> T:
        """In the thread, and to its end: whoever is cancelled meanwhile must not let go of the connection before."""
        working = asyncio.ensure_future(self._run(self._writer, work, *arguments))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    def _write(self, work: Callable[[Cursor], T], until: float) -> T:
        """`until`: those that queue behind a lock have waited for it already, and all give up at about their time."""
        self._begin(until)
        with self._all_or_nothing() as connection:
            result = work(_Cursor(connection))
            connection.execute("COMMIT")
        return result

    def _begin(self, until: float) -> None:
        with self._patient(until - time.monotonic()) as connection:
            connection.execute("BEGIN IMMEDIATE")

    @contextmanager
    def _patient(self, seconds: float = BUSY_SECONDS) -> Iterator[sqlite3.Connection]:
        """The connection that writes, waiting for other processes meanwhile: in the thread alone, or the loop waits."""
        assert self._write_connection is not None
        self._write_connection.execute(f"PRAGMA busy_timeout={max(0, round(seconds * 1000))}")
        try:
            yield self._write_connection
        finally:
            self._write_connection.execute("PRAGMA busy_timeout=0")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[sqlite3.Connection]:
        """The connection that writes; what fails takes its transaction with it."""
        assert self._write_connection is not None
        try:
            yield self._write_connection
        except BaseException:
            if self._write_connection.in_transaction:  # a full disk has ended it itself; a COMMIT that failed has not
                self._write_connection.execute("ROLLBACK")
            raise

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
        return await self._by_writer(self._give_back)

    def _fold_log(self) -> None:
        """Fold a write-ahead log that has grown into the database, and empty it if nobody reads in it now."""
        if self._log_size() <= LOG_BYTES:
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
        return await self._by_writer(self._ask_version)

    def _ask_version(self) -> int:
        assert self._write_connection is not None  # the one that writes: it does not count what it wrote itself
        return int(self._write_connection.execute("PRAGMA data_version").fetchone()[0])

    async def close(self) -> None:
        near, self._near_connection = self._near_connection, None
        if near is not None:
            near.close()
        if self._gathering is not None:
            await asyncio.wait({self._gathering})
        async with self._turn:  # behind those that wait for it
            reading, self._read_connection = self._read_connection, None
            writing, self._write_connection = self._write_connection, None
            for executor, connection in ((self._reader, reading), (self._writer, writing)):
                if connection is not None:
                    await self._run(executor, connection.close)
                executor.shutdown(wait=False)

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
